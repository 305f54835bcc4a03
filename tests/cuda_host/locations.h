// Places in programs as numbers, so that every access can remember one.
#pragma once

#include <cstdint>
#include <string>

#include "tests/cuda_host/device.h"

namespace cuda_host {

/// An instruction of this program, or an interned line; 0 is none.
using Location = std::uint32_t;

/// Of an instruction, by the address that it returns to.
[[nodiscard]] Location location_of(const void* return_address);
/// Of a line; `place.file` has to live on.
[[nodiscard]] Location location_of(Place place);
/// "file:line", without folders. Of an instruction that was inlined: the innermost line of a kernel's own
/// file.
[[nodiscard]] std::string text_of(Location location);
/// What kernels share, and libraries: lines there say less than those that called them.
[[nodiscard]] bool is_helper(const std::string& path);

}  // namespace cuda_host
