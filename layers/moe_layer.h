// The mixture of experts: router, exchange of rows, experts, weighted sum; forward and backward.
#pragma once

#include <memory>
#include <optional>

#include "comm/exchange/exchange.h"
#include "layers/expert_group.h"
#include "layers/expert_padding.h"
#include "layers/router.h"
#include "layers/shared_expert.h"

namespace moesaic {

/// y[t] = sum over the choices k of token t of weight[t,k] * expert[t,k](x[t]), plus shared(x[t]) where there
/// are shared experts. Rows travel in as many rounds as the receive budget and ModelSpec::chunks ask for; no
/// bit of y and of the gradients of x depends on their number, nor of others but with
/// ExchangeSizes::own_rows_first. With a capacity, choices that no longer fit add nothing: a token that loses
/// all passes through the residual alone.
class MoELayer {
  public:
    struct Round {
        ArrivedRows rows;
        ExpertGroup::Saved experts, copies;
    };
    struct Saved {
        RouterSaved router;
        Routing routing;  // the router's
        Routing kept;     // what a capacity leaves of it; empty where dropless
        Tensor
            of_slices;  // real [T,K*t] the weights of `followed`, each t times; empty where experts are whole
        DispatchPlan plan;
        std::optional<ExpertPadding> padding;  // with capacity.pad, when there is one round of padded rows
        std::vector<Round> rounds;             // those that are kept; later ones are received again
        ExpertGroup::OpenSources open, open_of_copies;  // from round to round of the backward
        ExchangeSaved exchange;
        SharedExpert::Saved shared;
        BalanceTarget balance;  // set before the backward

        [[nodiscard]] const Routing& followed() const { return kept.expert ? kept : routing; }
        /// By the choices of the plan.
        [[nodiscard]] ConstTensorView weight() const { return of_slices ? of_slices : followed().weight; }
    };

    /// `exchange`, of make_exchange(spec, ...), outlives the layer and may be that of all layers.
    MoELayer(const ModelSpec& spec, int layer, const Mesh& mesh, Exchange& exchange, ParameterStore& store);

    /// Collective over mesh.experts(). Phase `recompute` follows the routing and the plan that `saved` holds.
    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    /// Collective over mesh.experts(). Includes the gradients of the balance losses.
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const;

    /// Router::update.
    void update_router(StepContext& context, std::span<const i64> counts) const {
        router_->update(context, counts);
    }
    [[nodiscard]] const Router& router() const { return *router_; }
    [[nodiscard]] i64 capacity_rows() const { return exchange_.capacity_rows(); }

  private:
    void decide(StepContext& context, const LayerInput& in, Saved& saved) const;
    void choose(StepContext& context, const LayerInput& in, Saved& saved) const;
    /// Gradient by way of the shared experts; empty where there are none.
    [[nodiscard]] Tensor shared_backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                         Saved& saved) const;
    [[nodiscard]] Tensor repeated_for_slices(StepContext& context, ConstTensorView weight) const;
    [[nodiscard]] Tensor summed_over_slices(StepContext& context, ConstTensorView d_weight) const;
    void round_forward(StepContext& context, std::size_t round, Round& current, Saved& saved) const;
    [[nodiscard]] i64 rows_of_experts(const DispatchChunk& chunk) const;
    void experts_forward(StepContext& context, const DispatchChunk& chunk, const IndexedRows& rows,
                         TensorView out, Round& current) const;
    void experts_backward(StepContext& context, const DispatchChunk& chunk, const IndexedRows& d_out,
                          TensorView d_rows, Round& current) const;
    void keep_memory_of_unused_rounds(StepContext& context, Saved& saved) const;
    void receive_again(StepContext& context, const LayerInput& in, std::size_t round, Saved& saved) const;
    void round_backward(StepContext& context, std::size_t round, const ArrivedRows& d_out, Saved& saved,
                        ExchangeBackward& backward) const;

    ModelSpec spec_;
    int layer_;
    i64 padded_rows_;  // of an expert, with capacity.pad; else 0
    i64 slices_;       // t, in which experts lie on as many ranks
    std::size_t local_experts_;
    std::unique_ptr<Router> router_;
    Exchange& exchange_;
    ExpertGroup experts_;
    std::optional<ExpertGroup> copies_;  // of other ranks' experts
    std::optional<SharedExpert> shared_;
};

[[nodiscard]] ExchangeSizes exchange_sizes(const ModelSpec& spec, const Mesh& mesh, DType dtype);
/// Collective over mesh.experts(). The exchange that the layers of such a model share; `dtype` of
/// activations.
[[nodiscard]] std::unique_ptr<Exchange> make_exchange(const ModelSpec& spec, const Mesh& mesh, DType dtype);

static_assert(Layer<MoELayer>);

}  // namespace moesaic
