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

/// One logical tensor, e.g. "model.layers.0.mlp.experts.3.gate_proj.weight". An expert's tensors are
/// parameters of their own, so that names, initial values, checkpoints and norms do not depend on the layout.
struct Parameter {
    std::string name;
    Shape shape;
    Placement placement = Placement::replicated;
    int layer = -1;       ///< transformer block, -1 for none
    i64 expert = -1;      ///< global expert number, -1 for none
    double init_std = 0;  ///< normal initial values; 0 together with init_constant
    double init_constant = 0;
    TensorView value;  ///< set when storage is assigned
    TensorView grad;
    /// Its layer's backward adds to the sum (ParameterStore::sums) and leaves grad 0.
    bool folds_itself = false;
    /// Never has a gradient and never decays, so that no optimizer changes it.
    bool frozen = false;
    [[nodiscard]] bool decays() const { return shape.rank() >= 2 && !frozen; }
    /// The name of the same tensor of another expert: "….experts.3.…" with 3 replaced.
    [[nodiscard]] std::string name_for_expert(i64 other) const;
};

}  // namespace moesaic
