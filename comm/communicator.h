// What ranks say to each other: a handful of collective verbs over rows, each with a label and a time-out.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/flight_recorder.h"
#include "comm/traffic_ledger.h"
#include "runtime/memory_pool.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace moesaic {

enum class ReduceOp : std::uint8_t { sum, max, min };

/// Rows per peer; size() == communicator.size().
using Counts = std::span<const i64>;

/// Names what a collective is for: errors and time-outs say it.
struct Label {
    std::string_view operation;  ///< a string literal: deferred work reads it later
    int layer = -1;

    [[nodiscard]] std::string text() const;  ///< e.g. "dispatch, layer 5"
};

/// How the ranks of a communicator lie on machines.
struct Topology {
    int nodes = 1;
    int ranks_per_node = 1;  ///< the greatest common divisor where nodes hold different numbers of ranks
    int local_rank = 0;      ///< among the ranks of this node
    int node = 0;            ///< this rank's, from 0
};

/// What a communicator shares with everything split from it.
struct CommunicatorSettings {
    double timeout_seconds = 600;
    bool beside_compute = false;  ///< the thread that waits shares its core with one that computes
    TrafficLedger ledger;         ///< of this rank
    FlightRecorder flights;       ///< of this rank
    /// Called after a time-out, once the wait is over: what is known about it, or nothing.
    std::function<std::string()> explain_hang;
};

class SharedWindow;

/// A group of ranks. Rules for all verbs:
///  * every rank of the group calls the same verbs in the same order; collectives of one communicator go to
///  one
///    stream, or to several that events order;
///  * counts and shapes are read at the call, tensors when the stream gets there: they live until then;
///  * zero rows are legal everywhere, and so is a row of any number of bytes;
///  * a rank that waits longer than the time-out throws Error saying rank, step, verb, label and
///  communicator.
///    The group is unusable from then on: the process has to end with abort().
class Communicator {
  public:
    /// `pool` holds what reductions need in between; by default one of its own.
    Communicator(int rank, int size, std::string name, std::shared_ptr<CommunicatorSettings> settings,
                 std::shared_ptr<MemoryPool> pool = nullptr);
    virtual ~Communicator() = default;
    Communicator(const Communicator&) = delete;
    Communicator& operator=(const Communicator&) = delete;

    [[nodiscard]] int rank() const { return rank_; }
    [[nodiscard]] int size() const { return size_; }
    [[nodiscard]] const std::string& name() const { return name_; }  ///< "world", "experts", "replicas", ...
    /// False where the other ranks are only counted (AccountingCommunicator): nothing arrives from them.
    [[nodiscard]] virtual bool connected() const { return true; }
    /// Memory that reductions hold between calls, besides what the back end's pool tells.
    [[nodiscard]] i64 reserved_bytes() const { return pool_->bytes_reserved(); }
    /// This rank's segments of the windows that share_memory has made.
    [[nodiscard]] i64 shared_bytes() const { return shared_bytes_; }
    [[nodiscard]] virtual Topology topology() const { return {1, size_, rank_}; }
    /// Inside of all-to-alls and gathers of this communicator, waiting included.
    [[nodiscard]] double seconds() const { return seconds_; }
    /// Those of seconds() that only passed until other ranks came: in meetings on shared memory, and in
    /// messages over the host's memory so small that their own time is none. What larger ones wait for, and
    /// GPUs' messages, is not told apart.
    [[nodiscard]] double waiting_seconds() const { return waiting_seconds_; }
    /// What this rank has sent over this communicator and all that share its settings: splits and the world.
    [[nodiscard]] const TrafficLedger& ledger() const { return settings_->ledger; }
    /// By rank of this communicator, equal numbers share a node. Without, all ranks do.
    void set_peer_nodes(std::vector<int> node_of_peer);
    /// For rows that reach other ranks through shared memory, beside the verbs.
    void count_seconds(double seconds) { seconds_ += seconds; }
    /// Of seconds that are counted besides.
    void count_waiting(double seconds) { waiting_seconds_ += seconds; }
    /// Rows sent to each peer.
    void count_rows(const Label& label, Counts rows, i64 row_bytes);
    [[nodiscard]] double timeout_seconds() const { return settings_->timeout_seconds; }
    void set_timeout_seconds(double seconds) { settings_->timeout_seconds = seconds; }  ///< splits included

    [[nodiscard]] const std::shared_ptr<CommunicatorSettings>& settings() const { return settings_; }

    /// From now on verbs run beside computation (StreamMode::threads) and sleep while they wait.
    void set_beside_compute(bool beside) { settings_->beside_compute = beside; }

    // ------------------------------------------------------------ what every implementation provides

    /// Collective over this communicator. Peer p gets the rows of `send` after those for peers 0..p-1; `recv`
    /// takes the peers' rows in rank order. recv_rows[p] here equals send_rows[rank()] on p. No overlap.
    virtual void all_to_all_rows(Stream& stream, ConstTensorView send, Counts send_rows, TensorView recv,
                                 Counts recv_rows, Label label) = 0;
    /// Collective over this communicator. Rank p's rows[p] rows stand in `all` after those of ranks 0..p-1;
    /// `rows` is the same everywhere. `mine` may be its own place in `all`.
    virtual void all_gather_rows(Stream& stream, ConstTensorView mine, TensorView all, Counts rows,
                                 Label label) = 0;
    /// Collective over this communicator. `data` becomes on every rank what it is on rank `root`.
    virtual void broadcast(Stream& stream, TensorView data, int root, Label label) = 0;
    /// Collective over this communicator, on the host at once: returns when every rank has called it.
    /// Work that streams still hold is not waited for.
    virtual void barrier(Label label) = 0;
    /// To one peer, which calls recv with a view of the same size. May wait for that call: in a ring let even
    /// ranks send first and odd ranks receive first.
    virtual void send(Stream& stream, ConstTensorView data, int peer, Label label) = 0;
    virtual void recv(Stream& stream, TensorView data, int peer, Label label) = 0;
    /// Collective over this communicator, on the host at once. Ranks of one `color` (>= 0) form a new group,
    /// ranked by (key, rank here). All calls of one split pass names of the same meaning, such as "experts".
    [[nodiscard]] virtual std::unique_ptr<Communicator> split(int color, int key, std::string name) = 0;
    /// Ends the whole world, not only this group: threads' ranks throw AbortedError from whatever they wait
    /// in; an MPI process prints `why` and does not return (exit code 1).
    virtual void abort(std::string_view why) noexcept = 0;

    // ------------------------------------------------------------ built on those, the same everywhere

    /// Collective over this communicator. As all_gather_rows with as many rows on every rank.
    void all_gather(Stream& stream, ConstTensorView mine, TensorView all, Label label);
    /// Collective over this communicator. `data` [sum of rows, .] is cut into slices of rows[p] rows; rank p
    /// gets slice p reduced over the ranks, in rank order 0, 1, ..., so that neither the position in `data`
    /// nor the implementation changes a bit. f64, f32, i64, i32. `mine` may be its own place in `data`.
    void reduce_scatter_rows(Stream& stream, ConstTensorView data, Counts rows, TensorView mine, ReduceOp op,
                             Label label);
    /// Collective over this communicator. In place, reduced in rank order: same bits on every rank.
    void all_reduce(Stream& stream, TensorView data, ReduceOp op, Label label);

    /// Collective over this communicator, on the host at once; for start-up. A window (shared_window.h) with
    /// `bytes` of every rank, the same number everywhere, rounded up to a multiple of 64. Throws UserError
    /// where the ranks are not all on one machine or it has no such memory left.
    [[nodiscard]] std::unique_ptr<SharedWindow> share_memory(i64 bytes, Label label);

    // ------------------------------------------------------------ words for errors

    /// "rank 3 of 8, step 118": who speaks, by its world rank.
    [[nodiscard]] static std::string speaker();
    /// "all_to_all_rows 'dispatch, layer 5' on communicator 'experts'".
    [[nodiscard]] std::string describe(std::string_view verb, const Label& label) const;
    /// The text of a time-out in that verb; `missing` says who is awaited, where that is known.
    [[nodiscard]] std::string timeout_text(std::string_view verb, const Label& label,
                                           std::string_view missing = {}) const;

    // ------------------------------------------------------------ flight records

    /// Of this rank, over this communicator and all that share its settings.
    [[nodiscard]] FlightRecorder& flights() const { return settings_->flights; }
    void set_explain_hang(std::function<std::string()> explain) {
        settings_->explain_hang = std::move(explain);
    }
    /// This communicator's entry into a collective, for FlightRecorder::Scope.
    [[nodiscard]] FlightRecorder::Call flight(std::string_view verb, const Label& label) const {
        return {.group = flight_group_, .verb = verb, .operation = label.operation, .layer = label.layer};
    }

  protected:
    /// Collective over this communicator: share_memory without the accounts.
    [[nodiscard]] virtual std::unique_ptr<SharedWindow> make_window(i64 bytes, Label label) = 0;
    /// Collective over this communicator. all_to_all_rows where every rank sends `rows` rows to every rank,
    /// which all ranks know; here it is just that.
    virtual void all_to_all_even_rows(Stream& stream, ConstTensorView send, i64 rows, TensorView recv,
                                      Label label);
    /// Reduces `parts` (size() blocks as large as `into`, one after the other) in their order; keeps `parts`
    /// until done. Here for host streams; a device's communicator brings a kernel.
    virtual void reduce_in_order(Stream& stream, std::shared_ptr<Tensor> parts, TensorView into, ReduceOp op);
    /// Scratch memory that stays valid as long as somebody holds the pointer.
    [[nodiscard]] std::shared_ptr<Tensor> scratch(Shape shape, DType dtype);
    /// Makes collectives of this communicator known to the flight recorder; without, they are not recorded.
    void record_flights(std::vector<int> world_ranks);
    /// `bytes` sent to every rank.
    void count_gathered(const Label& label, i64 bytes);

  private:
    int rank_, size_;
    std::string name_;
    std::shared_ptr<CommunicatorSettings> settings_;
    std::shared_ptr<MemoryPool> pool_;
    std::shared_ptr<std::mutex> pool_mutex_ = std::make_shared<std::mutex>();
    i64 shared_bytes_ = 0;
    int flight_group_ = -1;
    [[nodiscard]] i64& place_for(SentBytes& bytes, int peer) const;

    double seconds_ = 0, waiting_seconds_ = 0;
    std::vector<int> node_of_peer_;  // empty: one node
};

}  // namespace moesaic
