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
    struct Round {
        ExpertRows rows;  // [C,H] received
        ExpertGroup::Saved experts;
    };
    struct Saved {
        RouterSaved router;
        Routing routing;
        DispatchPlan plan;
        std::vector<Round> rounds;  // those that are kept; later ones are received again
        /// [e] the source whose rows the experts' gradients hold a part of, from round to round.
        std::vector<i64> open_source;
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
    void round_forward(StepContext& context, std::size_t round, Round& current, Saved& saved) const;
    void keep_memory_of_unused_rounds(StepContext& context, Saved& saved) const;
    void receive_again(StepContext& context, const LayerInput& in, std::size_t round, Saved& saved) const;
    void round_backward(StepContext& context, std::size_t round, const ExpertRows& d_out, Saved& saved,
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
