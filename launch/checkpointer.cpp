#include "launch/checkpointer.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "launch/faults/fault_injector.h"
#include "launch/step_policy.h"
#include "launch/together.h"
#include "runtime/base/disk_fault.h"
#include "runtime/base/log.h"
#include "runtime/base/run_context.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/config/load.h"

namespace moesaic {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

WriterState state_of(const RankNote& note) {
    return static_cast<WriterState>(static_cast<int>(note.writer_state));
}

u64 checksum_of_note(const RankNote& note) {
    return static_cast<u64>(note.checksum_high) << 32 | static_cast<u64>(note.checksum_low);
}

std::string text_of(const std::exception_ptr& failure) {
    try {
        std::rethrow_exception(failure);
    } catch (const std::exception& error) {
        return error.what();
    }
}

}  // namespace

Checkpointer::Checkpointer(RankRuntime& runtime, Settings settings, FaultInjector* faults)
    : runtime_(runtime), settings_(std::move(settings)), faults_(faults) {}

Checkpointer::~Checkpointer() {
    join();
}

void Checkpointer::join() {
    if (thread_.joinable()) thread_.join();
}

std::string Checkpointer::folder() const {
    return checkpoints_folder(settings_.run_folder) + "/" + step_folder_name(position_.step);
}

void Checkpointer::start(std::function<void()> work) {
    join();
    state_ = WriterState::busy;
    thread_ = std::thread([this, work = std::move(work), context = run_context()] {
        run_context() = context;
        run_context().step = position_.step;  // training is further
        if (faults_ != nullptr) disk_fault() = faults_->disk(position_.step);
        try {
            work();
            state_ = WriterState::done;
        } catch (const std::exception&) {
            failure_ = std::current_exception();
            state_ = WriterState::failed;
        }
    });
}

std::optional<CheckpointOutcome> Checkpointer::begin(const TrainingPosition& position) {
    MOESAIC_ASSERT(part_ == Part::none, "the checkpoint of step {} is under way", position_.step);
    start_ = Clock::now();
    join();
    position_ = position;
    record_ = {};
    record_.step = position.step;
    record_.path = folder();
    failure_ = nullptr;
    state_ = WriterState::idle;
    Communicator& world = runtime_.mesh->world();
    try {
        if (world.rank() == 0) prepare_checkpoint_folder(settings_.run_folder, position.step);
    } catch (const std::exception&) {
        failure_ = std::current_exception();
    }
    const std::vector<bool> failed = gather_failures(world, *runtime_.exchange, failure_ != nullptr);
    if (failed[0]) return conclude(0);
    part_ = Part::shards;
    if (settings_.copies) {
        snapshot_.take(runtime_, position.step);
        start([this] { write_shard(); });
    } else {
        write_at_once();
    }
    record_.stall_seconds = seconds_since(start_);
    return {};
}

std::string Checkpointer::shard_path() const {
    const Communicator& world = runtime_.mesh->world();
    return folder() + "/" + shard_file_name(world.rank(), world.size());
}

/// Collective over the world, on the calling thread.
void Checkpointer::write_at_once() {
    const DiskFault before = disk_fault();
    if (faults_ != nullptr) disk_fault() = faults_->disk(position_.step);
    try {
        shard_ = write_shard_at_once(runtime_, position_.step, shard_path());
        if (faults_ != nullptr) faults_->shard_written(position_.step);
        state_ = WriterState::done;
    } catch (const std::exception&) {
        failure_ = std::current_exception();
        state_ = WriterState::failed;
    }
    disk_fault() = before;
}

void Checkpointer::write_shard() {
    shard_ = snapshot_.write(shard_path());
    if (faults_ != nullptr) faults_->shard_written(position_.step);
}

void Checkpointer::write_manifest_of(const std::vector<RankNote>& notes) {
    const int ranks = runtime_.mesh->world().size();
    Manifest manifest;
    manifest.step = position_.step;
    manifest.world_size = ranks;
    manifest.expert_parallel = runtime_.mesh->expert_parallel();
    manifest.tokens = position_.tokens;
    manifest.sampler_cursor =
        (position_.step + batch_shift_of(position_.observers)) * settings_.batch_sequences;
    manifest.config = settings_.config;
    manifest.tokenizer = settings_.tokenizer;
    manifest.observers = position_.observers;
    for (int rank = 0; rank < ranks; ++rank) {
        const RankNote& note = notes[static_cast<std::size_t>(rank)];
        const auto bytes = static_cast<i64>(note.shard_bytes);
        manifest.add_shard(folder(), {shard_file_name(rank, ranks), bytes, checksum_of_note(note)});
        record_.bytes += bytes;
    }
    write_manifest(folder(), manifest);
    write_latest(settings_.run_folder, position_.step);
    if (faults_ != nullptr) faults_->checkpoint_complete(position_.step, folder());
    if (!settings_.keep) return;
    try {
        prune_checkpoints(settings_.run_folder, *settings_.keep);
    } catch (const std::exception& failure) {  // the new one is complete all the same
        log_warn("earlier checkpoints could not be removed: {}", failure.what());
    }
}

void Checkpointer::tell(RankNote& note) const {
    const WriterState state = state_;
    note.writer_state = static_cast<double>(state);
    if (state != WriterState::done) return;
    note.shard_bytes = static_cast<double>(shard_.bytes);
    note.checksum_high = static_cast<double>(shard_.checksum >> 32);
    note.checksum_low = static_cast<double>(shard_.checksum & 0xffffffffu);
}

std::optional<CheckpointOutcome> Checkpointer::hear(std::span<const RankNote> notes) {
    if (part_ == Part::none) return {};
    // The manifest is rank 0's alone.
    const auto told = part_ == Part::shards ? notes : notes.first(1);
    const auto is = [](WriterState state) {
        return [state](const RankNote& note) { return state_of(note) == state; };
    };
    if (std::ranges::any_of(told, is(WriterState::busy))) return {};
    const auto failed = std::ranges::find_if(told, is(WriterState::failed));
    if (failed != told.end()) return conclude(static_cast<int>(failed - told.begin()));
    if (part_ == Part::manifest) return conclude(-1);
    part_ = Part::manifest;
    if (runtime_.mesh->world().rank() == 0)
        start([this, all = std::vector<RankNote>(notes.begin(), notes.end())] { write_manifest_of(all); });
    return {};
}

CheckpointOutcome Checkpointer::conclude(int failed_rank) {
    join();
    part_ = Part::none;
    state_ = WriterState::idle;
    record_.seconds = seconds_since(start_);
    const int rank = runtime_.mesh->world().rank();
    if (failed_rank >= 0 && rank == 0 && !has_manifest(folder())) {
        // What a full disk could not take must not keep it full; earlier checkpoints stay.
        std::error_code ignored;
        std::filesystem::remove_all(folder(), ignored);
    }
    CheckpointOutcome outcome{record_, failed_rank, ""};
    if (failed_rank == rank) outcome.why = text_of(failure_);
    return outcome;
}

std::optional<CheckpointOutcome> Checkpointer::finish() {
    if (!under_way()) return {};
    const auto start = Clock::now();
    Communicator& world = runtime_.mesh->world();
    std::vector<RankNote> notes(static_cast<std::size_t>(world.size()));
    std::optional<CheckpointOutcome> outcome;
    while (under_way()) {
        join();
        RankNote mine;
        tell(mine);
        world.all_gather(*runtime_.exchange, view_of(&mine.stop, {kRankNoteNumbers}),
                         view_of(&notes.front().stop, {kRankNoteNumbers * world.size()}),
                         {"end of a checkpoint"});
        runtime_.exchange->synchronize();
        outcome = hear(notes);
    }
    outcome->record.stall_seconds += seconds_since(start);
    return outcome;
}

void Checkpointer::throw_failure(const CheckpointOutcome& outcome) const {
    if (outcome.failed_rank < 0) return;
    if (outcome.failed_rank == runtime_.mesh->world().rank()) std::rethrow_exception(failure_);
    throw AbortedError(fmt::format("rank {} failed", outcome.failed_rank));
}

Checkpointer::Settings checkpoint_settings(const std::string& run_folder, const Config& config,
                                           const std::string& tokenizer) {
    return {run_folder,
            to_yaml(config),
            tokenizer,
            config.train.batch_sequences,
            config.train.keep_checkpoints,
            config.train.async_checkpoints};
}

CheckpointRecord save_checkpoint(RankRuntime& runtime, const std::string& run_folder,
                                 const TrainingPosition& position, const Config& config,
                                 const std::string& tokenizer) {
    Checkpointer checkpointer(runtime, checkpoint_settings(run_folder, config, tokenizer));
    std::optional<CheckpointOutcome> outcome = checkpointer.begin(position);
    if (!outcome) outcome = checkpointer.finish();
    checkpointer.throw_failure(*outcome);
    return outcome->record;
}

}  // namespace moesaic
