// Where pools of GPUs' memory get it.
#pragma once

#include "runtime/tensor.h"

namespace moesaic {

/// Device::cuda, for which there is memory from now on.
[[nodiscard]] Device device_with_memory();

}  // namespace moesaic
