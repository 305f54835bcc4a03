// The mixture of experts: router, exchange of rows, experts, weighted sum; forward and backward.
#pragma once

#include <memory>
#include <optional>

#include "comm/dispatcher.h"
#include "layers/expert_group.h"
#include "layers/expert_padding.h"
#include "layers/router.h"

namespace moesaic {

/// y[t] = sum over the choices k of token t of weight[t,k] * expert[t,k](x[t]). Rows travel in as many rounds
/// as the receive budget asks for; no bit of the result depends on their number. With a capacity, choices
/// that no longer fit add nothing: a token that loses all passes through the residual alone.
class MoELayer {
  public:
    struct Saved {
        RouterSaved router;
        Routing routing;  // the router's
        Routing kept;     // what a capacity leaves of it; empty where dropless
        DispatchPlan plan;
        std::optional<ExpertPadding> padding;  // with capacity.pad, when there is one round
        Tensor rows;                 // [C,H] received in round 0, padded; later rounds are received again
        ExpertGroup::Saved experts;  // of round 0
        Tensor slots;                // [Routing::slots(),H] the experts' results, by slot
        BalanceTarget balance;       // set before the backward

        [[nodiscard]] const Routing& followed() const { return kept.expert ? kept : routing; }
    };

    MoELayer(const ModelSpec& spec, int layer, const Mesh& mesh, ParameterStore& store);

    /// Collective over mesh.experts(). Phase `recompute` follows the routing and the plan that `saved` holds.
    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    /// Collective over mesh.experts(). Includes the gradients of the balance losses.
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const;

    /// Router::update.
    void update_router(StepContext& context, std::span<const i64> counts) const {
        router_->update(context, counts);
    }

    [[nodiscard]] i64 capacity_rows() const { return dispatcher_.capacity_rows(); }

  private:
    void decide(StepContext& context, const LayerInput& in, Saved& saved) const;
    void round_forward(StepContext& context, const LayerInput& in, std::size_t round, Saved& saved) const;
    void round_backward(StepContext& context, const LayerInput& in, std::size_t round, Saved& saved,
                        TensorView d_slots) const;

    ModelSpec spec_;
    int layer_;
    i64 padded_rows_;  // of an expert, with capacity.pad; else 0
    std::unique_ptr<Router> router_;
    Dispatcher dispatcher_;
    ExpertGroup experts_;
};

static_assert(Layer<MoELayer>);

}  // namespace moesaic
