// Functors of the sums over routers' tokens; runtime/backend.h says what they add up. Tokens go in chunks of
// fixed size, counted from the object's first, so that the bits of a sum depend on the object's shape alone.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

enum class Counted : std::uint8_t { all, first, most_probable };  ///< CountedChoices

inline constexpr i64 kTokensPerSum = 16;             ///< of a chunk
inline constexpr int kExpertSums = 5;                ///< counts, balance counts, probability, weight, load
inline constexpr int kRouterSums = kExpertSums + 1;  ///< and log_sum_exp^2, of no expert

/// number = (object * chunks + chunk) * tiles + tile of kBlockThreads experts. Operands that a router has not
/// are null. part is [kExpertSums, objects * chunks, experts], z_part [objects * chunks].
template <class T>
struct RouterSumChunk {
    const T *probability, *log_sum_exp, *load_probability, *weight;
    const i32* index;
    i64 tokens, choices, rows_per_object, objects, chunks, tiles;
    int experts, experts_at_once;  ///< the latter a power of two, at most kBlockThreads
    Counted counted;
    double *part, *z_part;
    __device__ void operator()(i64 number, const ThreadBlock& block) const;
};

/// number = (sum * objects + object) * tiles + tile of kColumnsOfBlock experts.
struct RouterSumTotal {
    const double *part, *z_part;
    i64 objects, chunks, experts, tiles;
    i64 *counts, *balance_counts;
    double *probability_sum, *weight_sum, *load_sum, *z_sum;
    __device__ void operator()(i64 number, const ThreadBlock& block) const;
};

template <class T>
struct ConfidencePart {
    const T *probability, *weight;
    i64 tokens, experts, choices, rows_per_part;
    double *entropy_sum, *first_weight_sum;
    __device__ void operator()(i64 part, const ThreadBlock& block) const;
};

}  // namespace moesaic::kernels
