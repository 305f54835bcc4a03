// The mixture of experts: router, exchange of rows, experts, weighted sum; forward and backward.
#pragma once

#include <memory>

#include "comm/exchange/exchange.h"
#include "layers/expert_group.h"
#include "layers/router.h"

namespace moesaic {

/// y[t] = sum over the choices k of token t of weight[t,k] * expert[t,k](x[t]). Rows travel in as many rounds
/// as the receive budget asks for; no bit of the result depends on their number.
class MoELayer {
  public:
    struct Saved {
        RouterSaved router;
        Routing routing;
        DispatchPlan plan;
        ExpertRows rows;             // [C,H] received in round 0; later rounds are received again
        ExpertGroup::Saved experts;  // of round 0
        ExchangeSaved exchange;
        BalanceTarget balance;  // set before the backward
    };

    /// `exchange`, of make_exchange(spec, ...), outlives the layer and may be that of all layers.
    MoELayer(const ModelSpec& spec, int layer, const Mesh& mesh, Exchange& exchange, ParameterStore& store);

    /// Collective over mesh.experts(). Phase `recompute` follows the routing and the plan that `saved` holds.
    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    /// Collective over mesh.experts(). Includes the gradients of the balance losses.
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const;

    [[nodiscard]] i64 capacity_rows() const { return exchange_.capacity_rows(); }

  private:
    [[nodiscard]] ExpertRows dispatch(StepContext& context, const LayerInput& in, std::size_t round,
                                      const DispatchPlan& plan) const;
    void round_forward(StepContext& context, const LayerInput& in, std::size_t round, Saved& saved) const;
    void round_backward(StepContext& context, const LayerInput& in, std::size_t round, Saved& saved,
                        ExchangeBackward& backward) const;

    int layer_;
    std::unique_ptr<Router> router_;
    Exchange& exchange_;
    ExpertGroup experts_;
};

[[nodiscard]] ExchangeSizes exchange_sizes(const ModelSpec& spec, const Mesh& mesh, DType dtype);
/// Collective over mesh.experts(). The exchange that the layers of such a model share; `dtype` of
/// activations.
[[nodiscard]] std::unique_ptr<Exchange> make_exchange(const ModelSpec& spec, const Mesh& mesh, DType dtype);

static_assert(Layer<MoELayer>);

}  // namespace moesaic
