// Which sequences of the global batch a rank computes, and when (contract, "Batches").
#pragma once

#include <algorithm>
#include <string>

#include "layers/model_spec.h"
#include "runtime/base/types.h"
#include "runtime/config/config.h"

namespace moesaic {

/// Micro-batch j holds sequences [j*size, (j+1)*size) of `sequences`; at micro-step i, rank r of W computes
/// micro-batch i*W + r, or nothing where there is none. Every rank makes the same number of micro-steps.
struct MicroBatches {
    i64 sequences = 0;  ///< in the whole batch
    i64 size = 1;       ///< sequences in a micro-batch; the last may be short
    i64 world = 1;
    i64 idle_rank =
        -1;  ///< gets none, and the ranks after it take its turn and each other's; -1: all get some

    struct Part {
        i64 first = 0, count = 0;  ///< sequences; count 0: nothing at this micro-step
    };

    [[nodiscard]] i64 count() const { return (sequences + size - 1) / size; }
    [[nodiscard]] i64 micro_steps() const { return (count() + busy() - 1) / busy(); }
    /// Ranks that get some.
    [[nodiscard]] i64 busy() const { return world - (idle_rank < 0 ? 0 : 1); }
    [[nodiscard]] Part part(i64 micro_step, i64 rank) const {
        if (rank == idle_rank) return {sequences, 0};
        const i64 turn = rank - (idle_rank >= 0 && rank > idle_rank ? 1 : 0);
        const i64 first = std::min((micro_step * busy() + turn) * size, sequences);
        return {first, std::min(size, sequences - first)};
    }
};

/// A batch of training on `world` ranks. That of a MoMLP holds as many samples of every cell, cell by cell: a
/// rank computes all of its cells' at once, and an expert's gradient is the sum of one micro-batch whatever
/// the layout.
[[nodiscard]] MicroBatches micro_batches_of(const Config& config, ModelKind kind, i64 world);

/// Whether a step adds to each gradient once, one micro-batch on one rank, and in the gradient's type: what a
/// prelu's slopes are given is f64. Such gradients are their own sums where the CPU computes.
[[nodiscard]] bool adds_gradients_once(const Config& config, const ModelSpec& spec, i64 world);

/// What to tell a user whose ranks wait for others at a quarter of their turns or more, since a batch has too
/// few micro-batches for them; empty otherwise.
[[nodiscard]] std::string advice_on_idle_ranks(const MicroBatches& batches);

}  // namespace moesaic
