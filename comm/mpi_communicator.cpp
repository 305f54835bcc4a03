#include "comm/mpi_communicator.h"

#define OMPI_SKIP_MPICXX  // the removed C++ bindings would need a library of their own
#define MPICH_SKIP_MPICXX
#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <exception>
#include <limits>
#include <map>
#include <numeric>
#include <thread>
#include <vector>

#include "comm/host_communicator.h"
#include "comm/mpi_environment.h"
#include "comm/mpi_groups.h"
#include "comm/mpi_window.h"
#include "runtime/base/log.h"
#include "runtime/base/run_context.h"

namespace moesaic {

namespace {

using Clock = std::chrono::steady_clock;

bool mpi_running() {
    int started = 0, ended = 0;
    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    return started && !ended;
}

/// Ends the whole job. Ranks that fail together (a time-out) wait a little by rank, so that the lowest one
/// prints and stops the others before they repeat it. An empty `why` was said before.
[[noreturn]] void end_job(std::string_view why, int exit_code) noexcept {
    const RunContext& context = run_context();
    if (context.rank > 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1000 + 100 * std::min(context.rank, 20)));
    }
    const bool says_rank = context.rank != 0 || why.starts_with("rank ");
    const std::string who = says_rank ? "" : Communicator::speaker() + ": ";
    if (!why.empty()) log_message(LogLevel::error, who + std::string(why));
    if (mpi_running()) MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}

/// What all communicators of a process share.
struct MpiState {
    std::map<i64, MPI_Datatype> row_types;  // bytes per row -> committed type
    bool oversubscribed = false;            // more ranks than cores on this node
    bool unfinished = false;                // a collective was given up: freeing or finalising could hang

    MPI_Datatype row_type(i64 bytes) {
        if (const auto found = row_types.find(bytes); found != row_types.end()) return found->second;
        if (bytes > std::numeric_limits<int>::max()) {
            throw Error(fmt::format("rows of {} bytes are too large for MPI", bytes));
        }
        MPI_Datatype type = MPI_BYTE;
        check_mpi(MPI_Type_contiguous(static_cast<int>(std::max<i64>(bytes, 1)), MPI_BYTE, &type),
                  "row type");
        check_mpi(MPI_Type_commit(&type), "row type");
        row_types.emplace(bytes, type);
        return type;
    }
    ~MpiState() {
        if (!mpi_running()) return;
        for (auto& [bytes, type] : row_types) MPI_Type_free(&type);
    }
};

/// Counts and displacements as MPI wants them; alive until the collective ends.
struct MpiCounts {
    std::vector<int> rows, first;

    void set(Counts counts, const std::string& what) {
        rows.resize(counts.size());
        first.resize(counts.size());
        i64 total = 0;
        for (std::size_t peer = 0; peer < counts.size(); ++peer) {
            first[peer] = static_cast<int>(total);
            rows[peer] = static_cast<int>(counts[peer]);
            total += counts[peer];
            if (total > std::numeric_limits<int>::max()) {
                throw Error(
                    fmt::format("{}: {} rows are more than MPI counts: send them in chunks", what, total));
            }
        }
    }
};

/// What the ranks compare before a collective when heavy assertions are on.
struct CallNote {
    std::array<char, 104> text{};
    i64 row_bytes = 0;  // 0: fits anything
    u64 counts = 0;     // a hash
};

class MpiCommunicator final : public HostCommunicator {
  public:
    MpiCommunicator(MPI_Comm group, int rank, int size, std::string name,
                    std::shared_ptr<CommunicatorSettings> settings, std::shared_ptr<MpiState> state)
        : HostCommunicator(rank, size, std::move(name), std::move(settings)),
          group_(group),
          state_(std::move(state)),
          topology_(topology_of(&group, size)) {
        record_flights(world_ranks_of(&group, size));
    }
    ~MpiCommunicator() override {
        if (mpi_running() && !state_->unfinished && std::uncaught_exceptions() == 0) MPI_Comm_free(&group_);
    }

    Topology topology() const override { return topology_; }

    void barrier(Label label) override {
        const FlightRecorder::Scope scope(flights(), flight("barrier", label));
        compare_calls("barrier", label, 0, {});
        MPI_Request request = MPI_REQUEST_NULL;
        check_mpi(MPI_Ibarrier(group_, &request), describe("barrier", label));
        finish(request, "barrier", label);
    }

    std::unique_ptr<Communicator> split(int color, int key, std::string name) override {
        MOESAIC_ASSERT(color >= 0, "color {}", color);
        barrier({"split"});  // the split itself cannot time out
        MPI_Comm group = MPI_COMM_NULL;
        check_mpi(MPI_Comm_split(group_, color, key, &group), describe("split", {"split"}));
        return wrap(group, std::move(name), settings(), state_);
    }

    void abort(std::string_view why) noexcept override { end_job(why, 1); }

    static std::unique_ptr<MpiCommunicator> wrap(MPI_Comm group, std::string name,
                                                 std::shared_ptr<CommunicatorSettings> settings,
                                                 std::shared_ptr<MpiState> state) {
        int rank = 0, size = 1;
        check_mpi(MPI_Comm_rank(group, &rank), "rank");
        check_mpi(MPI_Comm_size(group, &size), "size");
        return std::make_unique<MpiCommunicator>(group, rank, size, std::move(name), std::move(settings),
                                                 std::move(state));
    }

  protected:
    std::unique_ptr<SharedWindow> make_window(i64 bytes, Label label) override {
        return make_mpi_window(*this, &group_, bytes, label, !state_->oversubscribed);
    }
    void exchange_now(const Exchange& exchange) override;
    void gather_now(const Gather& gather) override;
    void broadcast_now(const Message& message) override;
    void send_now(const Message& message) override;
    void recv_now(const Message& message) override;

  private:
    /// Polls until the request is done or the time is up.
    void finish(MPI_Request& request, std::string_view verb, const Label& label,
                MPI_Status* status = nullptr);
    void compare_calls(std::string_view verb, const Label& label, i64 row_bytes, Counts same_counts);
    void compare_counts(const Exchange& exchange);

    MPI_Comm group_;
    std::shared_ptr<MpiState> state_;
    Topology topology_;
    MpiCounts sent_, received_;
};

void MpiCommunicator::finish(MPI_Request& request, std::string_view verb, const Label& label,
                             MPI_Status* status) {
    constexpr int kSpins = 1000;
    const auto start = Clock::now();
    for (int poll = 0;; poll = std::min(poll + 1, kSpins)) {
        int done = 0;
        check_mpi(MPI_Test(&request, &done, status ? status : MPI_STATUS_IGNORE), describe(verb, label));
        if (done) return;
        if (!state_->oversubscribed && poll < kSpins) continue;
        if (settings()->beside_compute) std::this_thread::sleep_for(std::chrono::microseconds(20));
        sched_yield();
        if (std::chrono::duration<double>(Clock::now() - start).count() > timeout_seconds()) {
            state_->unfinished = true;
            throw Error(timeout_text(verb, label));
        }
    }
}

void MpiCommunicator::exchange_now(const Exchange& exchange) {
    const std::string_view verb = "all_to_all_rows";
    compare_calls(verb, exchange.label, exchange.row_bytes, {});
    compare_counts(exchange);
    sent_.set(exchange.send_rows, verb.data());
    received_.set(exchange.recv_rows, verb.data());
    MPI_Datatype type = state_->row_type(exchange.row_bytes);
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ialltoallv(exchange.send, sent_.rows.data(), sent_.first.data(), type, exchange.recv,
                             received_.rows.data(), received_.first.data(), type, group_, &request),
              describe(verb, exchange.label));
    finish(request, verb, exchange.label);
}

void MpiCommunicator::gather_now(const Gather& gather) {
    const std::string_view verb = "all_gather_rows";
    compare_calls(verb, gather.label, gather.row_bytes, gather.rows);
    received_.set(gather.rows, verb.data());
    const auto own = static_cast<std::size_t>(rank());
    const i64 bytes = gather.rows[own] * gather.row_bytes;
    std::byte* place = gather.all + received_.first[own] * gather.row_bytes;
    // In place is all or none of the ranks in MPI, and whether `mine` is in place differs by rank here.
    if (bytes && place != gather.mine) std::memmove(place, gather.mine, static_cast<std::size_t>(bytes));
    MPI_Datatype type = state_->row_type(gather.row_bytes);
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallgatherv(MPI_IN_PLACE, 0, type, gather.all, received_.rows.data(),
                              received_.first.data(), type, group_, &request),
              describe(verb, gather.label));
    finish(request, verb, gather.label);
}

void MpiCommunicator::broadcast_now(const Message& message) {
    compare_calls("broadcast", message.label, message.bytes, std::array{i64{message.peer}});
    constexpr i64 kChunk = i64{1} << 30;
    for (i64 first = 0; first < message.bytes; first += kChunk) {
        const auto count = static_cast<int>(std::min(kChunk, message.bytes - first));
        MPI_Request request = MPI_REQUEST_NULL;
        check_mpi(MPI_Ibcast(message.data + first, count, MPI_BYTE, message.peer, group_, &request),
                  describe("broadcast", message.label));
        finish(request, "broadcast", message.label);
    }
}

void MpiCommunicator::send_now(const Message& message) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(message.data, message.bytes ? 1 : 0, state_->row_type(message.bytes), message.peer, 0,
                        group_, &request),
              describe("send", message.label));
    finish(request, "send", message.label);
}

void MpiCommunicator::recv_now(const Message& message) {
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Status status;
    check_mpi(MPI_Irecv(message.data, message.bytes ? 1 : 0, state_->row_type(message.bytes), message.peer, 0,
                        group_, &request),
              describe("recv", message.label));
    finish(request, "recv", message.label, &status);
    MPI_Count bytes = 0;
    check_mpi(MPI_Get_elements_x(&status, MPI_BYTE, &bytes), describe("recv", message.label));
    if (bytes != message.bytes) {
        throw Error(fmt::format("{}: {} expects {} bytes and got {}", speaker(),
                                describe("recv", message.label), message.bytes, static_cast<i64>(bytes)));
    }
}

void MpiCommunicator::compare_calls(std::string_view verb, const Label& label, i64 row_bytes,
                                    Counts same_counts) {
    if constexpr (!kHeavyAssertions) return;
    CallNote mine;
    const std::string text = fmt::format("{} '{}'", verb, label.text());
    text.copy(mine.text.data(), mine.text.size() - 1);
    mine.row_bytes = row_bytes;
    for (const i64 count : same_counts) mine.counts = mine.counts * 1099511628211u + static_cast<u64>(count);
    std::vector<CallNote> all(static_cast<std::size_t>(size()));
    constexpr int kBytes = sizeof(CallNote);
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallgather(&mine, kBytes, MPI_BYTE, all.data(), kBytes, MPI_BYTE, group_, &request),
              describe(verb, label));
    finish(request, verb, label);
    for (int peer = 0; peer < size(); ++peer) {
        const CallNote& other = all[static_cast<std::size_t>(peer)];
        const bool same_rows = other.row_bytes == row_bytes || !other.row_bytes || !row_bytes;
        if (other.text == mine.text && same_rows && other.counts == mine.counts) continue;
        state_->unfinished = true;
        throw Error(
            fmt::format("{}: the ranks of communicator '{}' disagree: rank {} calls {} with {} bytes per "
                        "row, rank {} calls {} with {} bytes per row{}",
                        speaker(), name(), rank(), mine.text.data(), row_bytes, peer, other.text.data(),
                        other.row_bytes, other.counts == mine.counts ? "" : " and other counts"));
    }
}

void MpiCommunicator::compare_counts(const Exchange& exchange) {
    if constexpr (!kHeavyAssertions) return;
    std::vector<i64> coming(static_cast<std::size_t>(size()));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ialltoall(exchange.send_rows.data(), 1, MPI_INT64_T, coming.data(), 1, MPI_INT64_T, group_,
                            &request),
              describe("all_to_all_rows", exchange.label));
    finish(request, "all_to_all_rows", exchange.label);
    for (std::size_t peer = 0; peer < coming.size(); ++peer) {
        if (coming[peer] == exchange.recv_rows[peer]) continue;
        state_->unfinished = true;
        throw Error(
            fmt::format("{}: the ranks disagree on rows in {}: rank {} sends {} to rank {}, which "
                        "expects {}",
                        speaker(), describe("all_to_all_rows", exchange.label), peer, coming[peer], rank(),
                        exchange.recv_rows[peer]));
    }
}

}  // namespace

bool mpi_available() {
    return true;
}

std::string mpi_library() {
    std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
    int length = 0;
    MPI_Get_library_version(text.data(), &length);
    return {text.data(), static_cast<std::size_t>(length)};
}

MpiSession::MpiSession() : exceptions_at_start_(std::uncaught_exceptions()) {
    set_mpi_defaults(more_ranks_than_cores(mpi_local_ranks()));
    int provided = 0;
    // Errors of MPI_Init end the process with MPI's own text. One thread at a time calls: nothing is locked.
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
    check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

MpiSession::~MpiSession() {
    if (!mpi_running()) return;
    if (std::uncaught_exceptions() > exceptions_at_start_) {
        MPI_Abort(MPI_COMM_WORLD, 1);  // finalising would wait for ranks that wait for this one
    }
    MPI_Finalize();
}

std::unique_ptr<Communicator> make_mpi_world(double timeout_seconds) {
    MPI_Comm group = MPI_COMM_NULL;
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &group), "MPI_Comm_dup");
    auto settings = std::make_shared<CommunicatorSettings>();
    settings->timeout_seconds = timeout_seconds;
    auto state = std::make_shared<MpiState>();
    auto world = MpiCommunicator::wrap(group, "world", std::move(settings), state);
    const Topology topology = world->topology();
    state->oversubscribed = more_ranks_than_cores(std::max(mpi_local_ranks(), topology.ranks_per_node));
    run_context().rank = world->rank();
    run_context().world_size = world->size();
    return world;
}

int run_mpi_rank(const std::function<int(Communicator&)>& body, double timeout_seconds) {
    MpiSession session;
    const auto world = make_mpi_world(timeout_seconds);
    // A communicator of its own: what other ranks are in the middle of cannot be mistaken for a farewell.
    const auto farewell = world->split(0, world->rank(), "farewell");
    try {
        return body(*world);
    } catch (const UserError& mistake) {
        if (world->rank() == 0) std::fputs(fmt::format("{}\n", mistake.what()).c_str(), stderr);
        farewell->set_timeout_seconds(5);
        try {
            farewell->barrier({"a user's mistake"});  // usually every rank finds it
            return 2;
        } catch (const Error&) {
            end_job(world->rank() == 0 ? "" : mistake.what(), 2);  // rank 0 has said it
        }
    } catch (const AbortedError& consequence) {
        // The rank that failed says so and ends the job, or waits in the farewell where it was a user's
        // mistake.
        farewell->set_timeout_seconds(10);
        try {
            farewell->barrier({"a user's mistake"});
            return 2;
        } catch (const Error&) {
            end_job(consequence.what(), 1);
        }
    } catch (const std::exception& failure) {
        end_job(failure.what(), 1);
    }
}

}  // namespace moesaic
