// The kinds of activation and their names: what configuration, layers and back ends all have to know.
#pragma once

#include <string_view>

#include "runtime/base/error.h"
#include "runtime/base/types.h"

namespace moesaic {

/// What stands between the projections of a feed-forward.
enum class ActivationKind : std::uint8_t {
    swiglu,  ///< silu(gate) * up (Shazeer 2020, "GLU variants improve transformer", eq. 6)
    gelu,    ///< x * Phi(x), Phi the normal distribution function by erf, not tanh (Hendrycks, Gimpel 2016)
    relu,    ///< max(x, 0), of slope 0 at 0
    prelu,   ///< x above 0, else slope * x (He et al. 2015, eq. 1), with one learnt slope
};

struct ActivationEntry {
    const char* name;  ///< of the configuration
    ActivationKind kind;
};
inline constexpr ActivationEntry kActivations[] = {{"swiglu", ActivationKind::swiglu},
                                                   {"gelu", ActivationKind::gelu},
                                                   {"relu", ActivationKind::relu},
                                                   {"prelu", ActivationKind::prelu}};

/// `name` is one of the table's.
[[nodiscard]] inline ActivationKind activation_kind(std::string_view name) {
    for (const ActivationEntry& entry : kActivations)
        if (entry.name == name) return entry.kind;
    MOESAIC_ASSERT(false, "no activation {}", name);
    return {};
}

/// Halves of its input that an element of the result is computed from: gate and up, or the input alone.
[[nodiscard]] constexpr i64 activation_halves(ActivationKind kind) {
    return kind == ActivationKind::swiglu ? 2 : 1;
}

/// He et al. 2015, section 2.1, and PyTorch.
inline constexpr double kInitialSlope = 0.25;

}  // namespace moesaic
