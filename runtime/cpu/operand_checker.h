// The checks of operands for back ends of other devices.
#pragma once

#include "runtime/backend.h"

namespace moesaic {

/// Computes nothing, but aborts at operands that the CPU back end would refuse, where they have to be in
/// memory of `device` (cpu::ExpectedDevice). So shapes and types are checked in one place for all back ends.
[[nodiscard]] std::unique_ptr<Backend> make_operand_checker(Device device);

}  // namespace moesaic
