// The interface of routers: which experts a token goes to, with what weights, and the losses that keep them
// balanced.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "comm/routing.h"
#include "layers/layer.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// Sums over a micro-batch by balance object (a sequence, or all of it), on the device and on the host. The
/// host's are valid after the next synchronisation of the compute stream; moving keeps them valid.
struct RouterTotals {
    i64 tokens = 0, choices = 0;
    i64 rows_per_object = 1;  ///< T_o; objects O = tokens / rows_per_object
    Tensor counts;            ///< i64 [O,E] (token, choice) pairs
    std::vector<i64> host_counts;
    std::vector<double> probability_sum;  ///< [O,E]
    std::vector<double> z_sum;            ///< [O] of logsumexp(logits)^2
    std::vector<double> weight_sum;       ///< [O]
    /// Of consecutive parts of the micro-batch, see router_confidence.h; empty where a router has no
    /// distribution, and outside of training.
    std::vector<double> entropy_sum, first_weight_sum;
};

/// What the two balance losses of a micro-batch are measured against.
struct BalanceTarget {
    double tokens = 1;              ///< N, of the global batch
    ConstTensorView global_counts;  ///< i64 [1,E] of the global batch, on the device; scope global only
};

/// What a router keeps from route to backward, besides the Routing itself.
struct RouterSaved {
    Tensor probability;  // [T,E]
    Tensor log_sum_exp;  // [T]
    RouterTotals totals;
};

class Router {
  public:
    virtual ~Router() = default;
    /// in.x [T,H] -> experts and weights [T,K].
    [[nodiscard]] virtual Routing route(StepContext& context, const LayerInput& in,
                                        RouterSaved& saved) const = 0;
    /// d_weight [T,K] and both balance losses, times their coefficients, are added onto dx [T,H] and the
    /// router's gradients.
    virtual void backward(StepContext& context, const LayerInput& in, const Routing& routing,
                          ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                          TensorView dx) const = 0;
    /// What is added to each expert's score for the selection alone [E], the same on every rank; empty where
    /// a router has none.
    [[nodiscard]] virtual std::vector<double> selection_bias() const { return {}; }
};

/// A router by its name in the configuration. `make` declares its parameters for block `layer`.
struct RouterEntry {
    std::string_view name;
    std::unique_ptr<Router> (*make)(const ModelSpec& spec, int layer, ParameterStore& store);
};

/// All routers there are; names for error messages.
[[nodiscard]] std::span<const RouterEntry> router_table();
/// Throws UserError naming the known routers where spec.router.kind is none of them.
[[nodiscard]] std::unique_ptr<Router> make_router(const ModelSpec& spec, int layer, ParameterStore& store);

}  // namespace moesaic
