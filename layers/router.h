// The interface of routers: which experts a token goes to, with what weights, and the losses that keep them
// balanced.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "comm/routing.h"
#include "layers/balance.h"
#include "layers/layer.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// How sure a router is: sums over consecutive parts of the micro-batch, see router_confidence.h; empty where
/// a router has no distribution, and outside of training.
struct RouterConfidenceSums {
    std::vector<double> entropy, first_weight;
};

/// What a router keeps from route to backward, besides the Routing itself. A router that has no probabilities
/// (hash, uniform) leaves the tensors empty.
struct RouterSaved {
    Tensor probability;  ///< real [T,E] the p of the load-balance losses; a row sums to 1
    Tensor log_sum_exp;  ///< real [T] of the logits, for the z-loss
    /// real [T,E] P(x,e) of Shazeer et al. 2017, eq. 8: the probability that e is among the chosen of t under
    /// another draw of e's noise. Routers with noise alone; the `load` loss is measured by it.
    Tensor load_probability;
    /// Of a router that adds up what it chooses in the same pass; until the layer takes the totals.
    std::optional<RouterSumTensors> sums;
    RouterTotals totals;  ///< set by the layer after route, see sum_router
    RouterConfidenceSums confidence;

    // What single routers keep; the others leave it empty.
    Tensor logits;   ///< real [T,E] where scores are sigmoids
    Tensor sigmoid;  ///< real [T,E]; only within route
    struct {
        Tensor clean, spread, normal, logits, ranked;  // as in NoisyLogits and NoisyLoad
    } noise;
    struct {
        Tensor input, factor;  // [T,H] what the gate read, and what the layer's input was multiplied by
    } jitter;
    std::vector<i32> host_choices;  ///< of a forced routing: what is copied to the device
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
    /// After an optimizer step whose whole batch made these `counts` [E] of choices, which live until compute
    /// has been synchronised: the same on every rank.
    virtual void update(StepContext&, std::span<const i64> /*counts*/) {}
    /// What is added to each expert's score for the selection alone [E], the same on every rank; empty where
    /// a router has none.
    [[nodiscard]] virtual std::vector<double> selection_bias() const { return {}; }
};

struct RouterTraits {
    int matrices = 1;             ///< [E,H] among its parameters
    bool learns = true;           ///< has a gradient, so that balance losses apply
    bool has_logits = true;       ///< whose size the z-loss may limit
    bool chooses_tokens = false;  ///< experts choose: K = E
};

/// A router by its name in the configuration. `make` declares its parameters for block `layer`.
struct RouterEntry {
    std::string_view name;
    std::unique_ptr<Router> (*make)(const ModelSpec& spec, int layer, ParameterStore& store);
    RouterTraits traits;
};

/// All routers there are; names for error messages.
[[nodiscard]] std::span<const RouterEntry> router_table();
/// Throw UserError naming the known routers where the kind is none of them.
[[nodiscard]] const RouterEntry& router_entry(std::string_view kind);
[[nodiscard]] RouterTraits router_traits(const RouterSpec& router);
/// One line for people, e.g. "top_k, 2 of 8 experts, softmax weights that sum to 1".
[[nodiscard]] std::string describe_router(const ModelSpec& spec);
[[nodiscard]] std::unique_ptr<Router> make_router(const ModelSpec& spec, int layer, ParameterStore& store);

}  // namespace moesaic
