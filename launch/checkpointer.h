// Saves a training run while it goes on: one shard per rank, one entry per logical tensor, a manifest last.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "launch/checkpoint_loading.h"
#include "launch/checkpoint_shard.h"
#include "launch/rank_note.h"
#include "runtime/metrics/records.h"

namespace moesaic {

class FaultInjector;

/// What became of a checkpoint; the same on every rank but for the record, which is complete on rank 0.
struct CheckpointOutcome {
    CheckpointRecord record;  ///< step and path are those of a failed one, too
    int failed_rank = -1;     ///< the lowest that could not write its part; -1: the checkpoint is complete
    std::string why;          ///< on that rank
};

/// RUN/checkpoints/step-...: every rank copies its share of weights and moments (ShardSnapshot), and a thread
/// writes it while training goes on, or without copies training waits. Once all ranks have told each other
/// that theirs are on disk, rank 0 writes the manifest, which makes the checkpoint complete, then `latest`,
/// and prunes; until then earlier checkpoints stay. The threads only write files: all talk among ranks is in
/// the step's own collectives.
class Checkpointer {
  public:
    struct Settings {
        std::string run_folder;
        std::string config;     ///< as YAML, for the manifest
        std::string tokenizer;  ///< its fingerprint, or empty
        i64 batch_sequences = 0;
        std::optional<i64> keep;  ///< newest complete ones; all
        bool copies = true;       ///< training goes on while files are written; else begin() writes them
    };
    /// `faults` may be null.
    Checkpointer(RankRuntime& runtime, Settings settings, FaultInjector* faults = nullptr);
    ~Checkpointer();
    Checkpointer(const Checkpointer&) = delete;
    Checkpointer& operator=(const Checkpointer&) = delete;

    /// Collective over the world, while none is under way. Copies what has to be saved and begins to write;
    /// an outcome only where the folder cannot be made.
    std::optional<CheckpointOutcome> begin(const TrainingPosition& position);
    /// How far this rank is.
    void tell(RankNote& note) const;
    /// What all ranks told in one step. Where they are all done with a part, the next one begins, or it is
    /// over. To be called with every step's notes.
    std::optional<CheckpointOutcome> hear(std::span<const RankNote> notes);
    /// Collective over the world. Waits until nothing is under way.
    std::optional<CheckpointOutcome> finish();
    [[nodiscard]] bool under_way() const { return part_ != Part::none; }
    /// Where that outcome is a failure: the rank throws what went wrong, the others AbortedError.
    void throw_failure(const CheckpointOutcome& outcome) const;

  private:
    enum class Part { none, shards, manifest };

    [[nodiscard]] std::string folder() const;
    void start(std::function<void()> work);
    void join();
    void write_shard();
    void write_at_once();
    [[nodiscard]] std::string shard_path() const;
    void write_manifest_of(const std::vector<RankNote>& notes);
    CheckpointOutcome conclude(int failed_rank);

    RankRuntime& runtime_;
    Settings settings_;
    FaultInjector* faults_;
    ShardSnapshot snapshot_;
    TrainingPosition position_;
    Part part_ = Part::none;  // the same on every rank
    std::thread thread_;
    std::atomic<WriterState> state_{WriterState::idle};
    SafetensorsWriter::Summary shard_;  // set before state_ is
    std::exception_ptr failure_;
    CheckpointRecord record_;
    std::chrono::steady_clock::time_point start_;
};

/// Collective over the world. A checkpoint at once: Checkpointer::begin and finish, a failure thrown.
CheckpointRecord save_checkpoint(RankRuntime& runtime, const std::string& run_folder,
                                 const TrainingPosition& position, const Config& config,
                                 const std::string& tokenizer = "");

[[nodiscard]] Checkpointer::Settings checkpoint_settings(const std::string& run_folder, const Config& config,
                                                         const std::string& tokenizer);

}  // namespace moesaic
