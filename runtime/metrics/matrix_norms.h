// Norms of a weight matrix, as bounds and measures ask for them.
#pragma once

#include <span>
#include <string_view>

#include "runtime/base/types.h"

namespace moesaic {

struct MatrixNorms {
    double frobenius = 0;
    double spectral = 0;     ///< a lower estimate: power iteration; see spectral_norm_estimate
    double row_sum = 0;      ///< sum over rows (outputs) of their norms, ||W^T||_{2,1}
    double largest_row = 0;  ///< norm
    bool operator==(const MatrixNorms&) const = default;
};

/// Of W [rows, columns], row by row. `name` chooses the start of the power iteration, so that the same
/// weights give the same bits wherever they are computed.
[[nodiscard]] MatrixNorms matrix_norms(std::span<const float> weights, i64 rows, i64 columns,
                                       std::string_view name);

/// sum_r |v_r| |u_r| over the columns v of `down` [H,F] and the rows u of `up` [F,H].
[[nodiscard]] double path_norm(std::span<const float> down, std::span<const float> up, i64 hidden);

}  // namespace moesaic
