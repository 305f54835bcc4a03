// How kernels can be run by the program that a test is linked into.
#pragma once

#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "tests/cuda_host/emulator.h"

namespace cuda_host {

enum class Layer { emulated, checked, ptx };

/// Layers 1 to 3 of README.md.
struct Mode {
    std::string name;
    Layer layer;
    Settings settings;                                                      ///< but for the seed
    std::int64_t most_elements = std::numeric_limits<std::int64_t>::max();  ///< of cases of the table
};
inline void PrintTo(const Mode& mode, std::ostream* out) {
    *out << mode.name;
}
[[nodiscard]] std::vector<Mode> modes();
/// With seeds, for the table of operations in f32. MOESAIC_EMULATOR_SEEDS is how many of each, for runs by
/// hand; all but the first leave out large cases.
[[nodiscard]] std::vector<Mode> table_modes();

}  // namespace cuda_host
