// The language model: embedding, blocks, norm and head, with its losses and its backward.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "comm/planted_defects.h"
#include "layers/block.h"
#include "layers/embedding.h"
#include "layers/model_spec.h"
#include "layers/output_head.h"

namespace moesaic {

/// This rank's micro-batch; lives until the backward. T = sequences * seq_len, which may be 0.
struct Batch {
    ConstTensorView tokens;   ///< i32 [T] on the device
    ConstTensorView targets;  ///< i32 [T] on the device; -1: masked
    i64 sequences = 0, seq_len = 0;
    /// i32 [T] on the device: the first row (of this batch) that row t may attend to, in t's own sequence;
    /// empty: the sequence's first. Documents packed into one sequence are kept apart so.
    ConstTensorView first_key{};
};

/// What a micro-batch has to know of the global batch.
struct GlobalBatch {
    i64 tokens = 0;   ///< N
    i64 targets = 0;  ///< not masked
    /// [expert layers * E] (token, choice) pairs of the whole batch; scope global only. The sum of
    /// RouterStatistics::counts over a forward-only pass.
    std::vector<i64> expert_counts;
};

struct RouterStatistics {
    std::vector<i64> counts;  ///< [E] (token, choice) pairs of this micro-batch
    double weight_sum = 0;    ///< of all chosen weights
    i64 choices = 0;          ///< T*K
};

/// A micro-batch's share of the two balance losses, without their coefficients: the sum over all
/// micro-batches is the loss of the global batch.
struct BalanceTerms {
    double aux = 0, z = 0;
};

struct ForwardResult {
    Tensor token_loss;   ///< f64 [T] in nats, 0 where masked
    Tensor token_wrong;  ///< i32 [T] 1 where another token is likelier; phase evaluate only, else empty
    std::vector<RouterStatistics> routers;  ///< one per layer with experts
};

/// What one micro-batch keeps between forward and backward.
struct ModelSaved {
    Batch batch;
    std::vector<Tensor> inputs;        ///< [T,H] of each block, and last that of the final norm
    std::vector<Block::Saved> blocks;  ///< with spec.recompute the routers' decisions alone
    RmsNormLayer::Saved norm;
    Tensor normed;  ///< [T,H] what the head reads
    OutputHead::Saved head;
};

/// Total loss of a global batch = sum of unmasked token losses / targets + aux * loss_aux + z * loss_z, with
///  loss_aux = sum over layers and balance objects o of T_o/N * E/(K T_o) * sum_e count_e * mean_p_e,
///  loss_z = sum over layers of the mean over tokens of logsumexp(router logits)^2.
/// Segments of the store, in forward order: embedding, each block, final norm with the head.
class Model {
  public:
    /// Declares every parameter; the caller then allocates the store. `mesh` and `store` outlive the model.
    Model(const ModelSpec& spec, const Mesh& mesh, ParameterStore& store, PlantedDefects defects = {});
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    /// Collective over mesh.experts(). Synchronises with compute; phase evaluate leaves `saved` empty.
    [[nodiscard]] ForwardResult forward(StepContext& context, const Batch& batch, ModelSaved& saved);
    /// Between a forward and its backward.
    [[nodiscard]] BalanceTerms balance(const ModelSaved& saved, const GlobalBatch& global) const;
    /// Collective over mesh.experts(). Adds into the gradients, empties `saved` and calls segment_ready when
    /// all work on the gradients of a segment is enqueued on compute, from the last segment to the first.
    void backward(StepContext& context, ModelSaved& saved, const GlobalBatch& global,
                  const std::function<void(int segment)>& segment_ready);
    /// Collective over mesh.experts(). Logits [T,V]; keeps nothing. Targets are not read.
    [[nodiscard]] Tensor logits(StepContext& context, const Batch& batch);

    [[nodiscard]] const ModelSpec& spec() const { return spec_; }
    [[nodiscard]] int segments() const { return spec_.layers + 2; }

  private:
    [[nodiscard]] Tensor run_blocks(StepContext& context, const Batch& batch, bool keep, ModelSaved& saved);
    [[nodiscard]] double balance_tokens(const ModelSaved& saved, const GlobalBatch& global) const;
    [[nodiscard]] BalanceTerms balance_of(const RouterTotals& totals, double tokens,
                                          std::span<const i64> global_counts) const;
    [[nodiscard]] Tensor upload_counts(StepContext& context, const GlobalBatch& global);

    ModelSpec spec_;
    int world_;
    PlantedDefects defects_;
    RotaryTable rotary_;
    std::unique_ptr<Exchange> exchange_;  // of all layers with experts
    std::vector<Block> blocks_;
    std::unique_ptr<EmbeddingLayer> embedding_;
    std::unique_ptr<RmsNormLayer> norm_;
    std::unique_ptr<OutputHead> head_;
    std::vector<i64> host_counts_;  // what upload_counts copies from
};

}  // namespace moesaic
