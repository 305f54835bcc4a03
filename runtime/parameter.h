// A logical parameter of the model: a name, where its values lie, and who owns it.
#pragma once

#include <string>

#include "runtime/tensor.h"

namespace moesaic {

/// Which ranks hold a parameter, and so which group its gradient is summed over.
enum class Placement : std::uint8_t {
    replicated,  ///< on every rank; summed over the world
    expert,      ///< on the ranks whose expert-parallel rank owns that expert; summed over those replicas
};

/// Which part of a logical tensor a rank holds, where several ranks share one expert's width.
struct TensorSlice {
    int index = 0, count = 1;
    int axis = -1;  ///< cut along it into `count` equal parts; -1: whole in every slice
};

/// One logical tensor, e.g. "model.layers.0.mlp.experts.3.gate_proj.weight". An expert's tensors are
/// parameters of their own, so that names, initial values, checkpoints and norms do not depend on the layout.
struct Parameter {
    std::string name;
    Shape shape;  ///< of what this rank holds
    Placement placement = Placement::replicated;
    int layer = -1;       ///< transformer block, -1 for none
    i64 expert = -1;      ///< global expert number, -1 for none
    TensorSlice slice;    ///< name, initial values and checkpoints are those of the whole tensor
    double init_std = 0;  ///< normal initial values; 0 together with init_constant
    double init_constant = 0;
    TensorView value;  ///< set when storage is assigned
    TensorView grad;
    /// Its layer's backward adds to the sum (ParameterStore::sums) and leaves grad 0.
    bool folds_itself = false;
    /// Never has a gradient and never decays, so that no optimizer changes it.
    bool frozen = false;
    [[nodiscard]] bool is_cut() const { return slice.count > 1 && slice.axis >= 0; }
    /// Every slice holds the whole tensor and has a part of its gradient: their sum is the gradient.
    [[nodiscard]] bool is_summed_over_slices() const { return slice.count > 1 && slice.axis < 0; }
    [[nodiscard]] Shape whole_shape() const;
    /// Where element `element` of slice `index` lies in the whole tensor, both flat.
    [[nodiscard]] i64 element_in_whole(i64 element, int index) const;
    [[nodiscard]] bool decays() const { return shape.rank() >= 2 && !frozen; }
    /// The name of the same tensor of another expert: "….experts.3.…" with 3 replaced.
    [[nodiscard]] std::string name_for_expert(i64 other) const;
};

}  // namespace moesaic
