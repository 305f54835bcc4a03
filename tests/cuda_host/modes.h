// How kernels can be run by the program that the test is linked into.
#pragma once

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
    Settings settings;  ///< but for the seed
};
inline void PrintTo(const Mode& mode, std::ostream* out) {
    *out << mode.name;
}
[[nodiscard]] std::vector<Mode> modes();
/// With seeds, for the table of operations in f32. MOESAIC_EMULATOR_SEEDS is how many of each, for runs by
/// hand.
[[nodiscard]] std::vector<Mode> table_modes();

}  // namespace cuda_host
