// What every rank tells all others once a step, beside its numbers.
#pragma once

namespace moesaic {

/// How far a rank's thread is that writes a checkpoint.
enum class WriterState : int { idle, busy, done, failed };

/// Flat numbers, so that they travel with those of the step.
struct RankNote {
    double stop = 0;                             ///< not 0: this rank was told to stop
    double writer_state = 0;                     ///< a WriterState
    double shard_bytes = 0;                      ///< of the shard that is written
    double checksum_high = 0, checksum_low = 0;  ///< 32 bits each
};
inline constexpr int kRankNoteNumbers = 5;
static_assert(sizeof(RankNote) == kRankNoteNumbers * sizeof(double));

}  // namespace moesaic
