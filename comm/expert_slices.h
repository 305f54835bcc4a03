// Whole tensors of experts whose width several ranks share, put together from slices and cut into them.
#pragma once

#include <vector>

#include "comm/mesh.h"
#include "comm/step_context.h"

namespace moesaic {

/// Writes the elements of slice `index` of a parameter to where they belong in the whole tensor. Host memory.
void put_slice(const Parameter& parameter, int index, ConstTensorView slice, TensorView whole);
/// The adjoint: this rank's slice of a whole tensor of the same type. Host memory.
void take_slice(const Parameter& parameter, ConstTensorView whole, TensorView slice);

/// Collective over mesh.slices() where the parameter is cut, and everywhere else a copy: the whole tensor of
/// which `mine` is this rank's slice (values, gradients or moments; host memory that compute has written).
/// The same on all slices. `operation` names the collective.
[[nodiscard]] std::vector<std::byte> whole_tensor(StepContext& context, const Parameter& parameter,
                                                  ConstTensorView mine, std::string_view operation);

}  // namespace moesaic
