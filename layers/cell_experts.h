// The experts of a MoMLP (arXiv 2402.03460): an MLP for each cell of the inputs, and no row leaves its rank.
#pragma once

#include <span>

#include "comm/mesh.h"
#include "comm/step_context.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// Which rows of a batch are whose: R of its T rows belong to experts of this rank.
struct CellRows {
    ConstTensorView order{};  ///< i32 [R] on the device: those rows, by expert and in ascending order
    ConstTensorView slot{};   ///< i32 [T,1] on the device: where in `order` a row is; -1: not here
    std::span<const i64> rows_per_expert;  ///< [e] on the host
};

/// Cells are no layer's experts, which parallel.placement moves: a rank has consecutive ones from this on.
[[nodiscard]] i64 first_cell_of(const Mesh& mesh);

/// Every row goes through the MLP of its cell alone: spec.layers hidden layers of spec.width units with
/// spec.activation, each with biases (the first layer's is the weight of the constant feature). An expert
/// lies on one rank, which needs the rows of its own cells and nothing of other ranks. Rows that are not here
/// get outputs 0 and give no gradient. Declares for each local expert e model.experts.{e}.layers.{j}.weight
/// [H,D] or [H,H], .bias [H,1] from the second layer on, .act_fn [1] with prelu, and
/// model.experts.{e}.output.weight [O,H] and .bias [O,1]; and the buffer model.prototypes [E, D-1], the
/// cells' centres, for whoever reads a checkpoint.
class CellExperts {
  public:
    /// Preactivations become gradients in the backward.
    struct Saved {
        Tensor rows;                                // [R,D] by expert
        Tensor ones;                                // real [R,1]: the input of biases
        std::vector<Tensor> preactivation, hidden;  // [R,H] of each hidden layer
    };

    CellExperts(const ModelSpec& spec, const Mesh& mesh, ParameterStore& store);

    /// x [T,D] -> outputs, stored as x, [T,O].
    [[nodiscard]] Tensor forward(StepContext& context, ConstTensorView x, const CellRows& cells,
                                 Saved& saved) const;
    /// Adds into the gradients. d_outputs real [T,O].
    void backward(StepContext& context, const CellRows& cells, ConstTensorView d_outputs, Saved& saved) const;
    /// [E] rows of each expert, 0 of those that are elsewhere.
    [[nodiscard]] std::vector<i64> counts(const CellRows& cells) const;

  private:
    struct Layer {
        Weight weight;  // [e,H,inputs]
        Weight bias;    // [e,H,1]; empty in the first layer
        Weight slope;   // [e]; empty but with prelu
    };
    void declare(const ModelSpec& spec, ParameterStore& store, int layer);
    /// y = x · weightᵀ + bias, expert by expert.
    [[nodiscard]] Tensor linear(StepContext& context, ConstTensorView x, const CellRows& cells,
                                const Layer& layer, const Saved& saved) const;
    void add_gradients(StepContext& context, ConstTensorView x, const CellRows& cells, const Layer& layer,
                       ConstTensorView dy, const Saved& saved) const;

    i64 experts_, first_expert_, local_experts_, hidden_, outputs_;
    ActivationKind activation_;
    std::vector<Layer> layers_;  // the hidden ones, and last the outputs
};

}  // namespace moesaic
