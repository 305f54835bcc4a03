// The interface of routers: which experts a token goes to, with what weights, and the losses that keep them
// balanced.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "comm/routing.h"
#include "layers/balance.h"
#include "layers/layer.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// What a router keeps from route to backward, besides the Routing itself. A router that has no probabilities
/// (hash, uniform) leaves the tensors empty.
struct RouterSaved {
    Tensor probability;  ///< real [T,E] the p of the load-balance losses; a row sums to 1
    Tensor log_sum_exp;  ///< real [T] of the logits, for the z-loss
    /// real [T,E] P(x,e) of Shazeer et al. 2017, eq. 8: the probability that e is among the chosen of t under
    /// another draw of e's noise. Routers with noise alone; the `load` loss is measured by it.
    Tensor load_probability;
    RouterTotals totals;  ///< set by the layer after route, see sum_router
};

class Router {
  public:
    virtual ~Router() = default;
    /// in.x [T,H] -> experts and weights [T,K].
    [[nodiscard]] virtual Routing route(StepContext& context, const LayerInput& in,
                                        RouterSaved& saved) const = 0;
    /// The derivatives that d_weight [T,K] and `target` give are added onto dx [T,H] and the router's
    /// gradients.
    virtual void backward(StepContext& context, const LayerInput& in, const Routing& routing,
                          ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                          TensorView dx) const = 0;
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
