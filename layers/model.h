// The model: embedding or input layer, blocks, norm and head, with its losses and its backward.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "comm/planted_defects.h"
#include "layers/block.h"
#include "layers/cell_experts.h"
#include "layers/embedding.h"
#include "layers/input_layer.h"
#include "layers/model_spec.h"
#include "layers/output_head.h"

namespace moesaic {

/// This rank's micro-batch; lives until the backward. T = sequences * seq_len, which may be 0. Of examples a
/// sequence is one row of features.
struct Batch {
    ConstTensorView tokens;   ///< i32 [T] on the device; empty where rows are features
    ConstTensorView targets;  ///< i32 [T] on the device; -1: masked
    i64 sequences = 0, seq_len = 0;
    /// i32 [T] on the device: the first row (of this batch) that row t may attend to, in t's own sequence;
    /// empty: the sequence's first. Documents packed into one sequence are kept apart so.
    ConstTensorView first_key{};
    i64 first_sequence = 0;      ///< number of its first sequence in the global batch
    ConstTensorView features{};  ///< stored [T,D] on the device, instead of tokens
    ConstTensorView values{};    ///< f64 [T,V] on the device, instead of targets: loss squared_error
    CellRows cells{};            ///< which rows are whose; kind momlp

    [[nodiscard]] i64 rows() const { return sequences * seq_len; }
};

/// What a micro-batch has to know of the global batch.
struct GlobalBatch {
    i64 tokens = 0;   ///< N
    i64 targets = 0;  ///< not masked
    // Sums of RouterStatistics over all micro-batches, [expert layers * E]; scope global only.
    std::vector<i64> expert_counts;      ///< balance_counts
    std::vector<double> expert_weights;  ///< read for balance.importance
    std::vector<double> expert_loads;    ///< read for balance.load
};

/// What one layer's router decided for a micro-batch, before a capacity drops some of it.
struct RouterStatistics {
    std::vector<i64> counts;          ///< [E] (token, choice) pairs
    std::vector<i64> balance_counts;  ///< [E] those that the balance loss counts
    std::vector<double> weights;      ///< [E] sum of the weights of an expert's choices
    std::vector<double> loads;        ///< [E] sum of its load probabilities; 0 without noise
    double weight_sum = 0;            ///< of all chosen weights
    i64 choices = 0;                  ///< the sum of counts
    i64 dropped = 0;                  ///< of these, for lack of capacity
    i64 tokens = 0;                   ///< T
    /// Phase train: sums over tokens of the entropy of the router's distribution, in nats, and of the first
    /// choice's weight; absent where the router has no distribution.
    std::optional<double> entropy_sum, first_weight_sum;
};

struct ForwardResult {
    Tensor token_loss;  ///< f64 [T] spec.loss of each row, 0 where masked
    /// i32 [T] 1 where another token or class is as likely; cross-entropy in phase evaluate only, else empty
    Tensor token_wrong;
    /// f64 [T] of the target's logit over the largest other, infinity where masked; cross-entropy, else empty
    Tensor token_margin;
    std::vector<RouterStatistics> routers;  ///< one per layer with experts
};

/// What one micro-batch keeps between forward and backward.
struct ModelSaved {
    Batch batch;
    std::vector<Tensor> inputs;        ///< [T,H] of each block, and last that of the final norm
    std::vector<Block::Saved> blocks;  ///< with spec.recompute the routers' decisions alone
    RmsNormLayer::Saved norm;
    Tensor normed;  ///< [T,H] what the head reads; without spec.residual there is no norm, and it is empty
    OutputHead::Saved head;
    CellExperts::Saved cells;  ///< kind momlp
};

/// Total loss of a global batch = sum of unmasked token losses / targets + aux * loss_aux + z * loss_z +
/// importance * loss_importance + load * loss_load, the latter as in layers/balance.h.
/// Segments of the store, in forward order: embedding or input layer, each block, final norm with the head;
/// of kind momlp all in one, since its experts are all there is.
class Model {
  public:
    /// Declares every parameter; the caller then allocates the store. `mesh` and `store` outlive the model.
    Model(const ModelSpec& spec, const Mesh& mesh, ParameterStore& store, PlantedDefects defects = {});
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    /// Collective over mesh.experts(). Synchronises with compute; phases evaluate and count_only leave
    /// `saved` empty.
    [[nodiscard]] ForwardResult forward(StepContext& context, const Batch& batch, ModelSaved& saved);
    /// Collective over mesh.experts(). What the routers choose, without the head; phase count_only.
    [[nodiscard]] std::vector<RouterStatistics> count_choices(StepContext& context, const Batch& batch);
    /// Between a forward and its backward.
    [[nodiscard]] BalanceTerms balance(const ModelSaved& saved, const GlobalBatch& global) const;
    /// Collective over mesh.experts(), and as GradientSync::start where context.gradients is set. Adds into
    /// the gradients, empties `saved` and calls segment_ready when all work on the gradients of a segment is
    /// enqueued on compute, from the last segment to the first.
    void backward(StepContext& context, ModelSaved& saved, const GlobalBatch& global,
                  const std::function<void(int segment)>& segment_ready);
    /// After an optimizer step over a batch with these choices [expert layers * E]: Router::update.
    void update_routers(StepContext& context, std::span<const i64> counts) const;
    /// Collective over mesh.experts(). Logits [T,V]; keeps nothing. Targets are not read.
    [[nodiscard]] Tensor logits(StepContext& context, const Batch& batch);

    /// Router::selection_bias of each layer with experts.
    [[nodiscard]] std::vector<std::vector<double>> selection_biases() const;
    [[nodiscard]] const ModelSpec& spec() const { return spec_; }
    [[nodiscard]] int segments() const { return cells_ ? 1 : spec_.layers + 2; }

  private:
    void declare_stack(const Mesh& mesh, ParameterStore& store);
    /// [T,H] what the first block reads.
    [[nodiscard]] Tensor run_input(StepContext& context, const Batch& batch) const;
    /// What the head reads.
    [[nodiscard]] static ConstTensorView head_input(const ModelSaved& saved);
    /// What block `index` reads.
    [[nodiscard]] static LayerInput input_of(const ModelSaved& saved, std::size_t index);
    void run_blocks(StepContext& context, const Batch& batch, bool keep, ModelSaved& saved);
    /// Gradient of what the last block returned.
    [[nodiscard]] Tensor head_backward(StepContext& context, ModelSaved& saved);
    [[nodiscard]] GlobalBalance global_balance(const ModelSaved& saved, const GlobalBatch& global) const;
    [[nodiscard]] std::vector<const RouterTotals*> router_totals(const ModelSaved& saved) const;
    [[nodiscard]] std::vector<RouterStatistics> router_statistics(const ModelSaved& saved) const;
    /// The balance losses' derivatives on the device, as BalanceFactors.
    struct Factors {
        Tensor probability, weight, load;
    };
    /// Sets the balance targets of all layers, which view what is returned.
    [[nodiscard]] Factors upload_factors(StepContext& context, ModelSaved& saved, const GlobalBatch& global);

    ModelSpec spec_;
    int world_;
    PlantedDefects defects_;
    RotaryTable rotary_;
    std::unique_ptr<Exchange> exchange_;  // of all layers with experts
    std::vector<Block> blocks_;
    std::unique_ptr<EmbeddingLayer> embedding_;  // where rows are tokens
    std::unique_ptr<InputLayer> input_;          // where they are features
    std::unique_ptr<CellExperts> cells_;         // kind momlp: all of the model up to the loss
    std::unique_ptr<RmsNormLayer> norm_;
    std::unique_ptr<OutputHead> head_;
    BalanceFactors host_factors_;  // what upload_factors copies from
};

}  // namespace moesaic
