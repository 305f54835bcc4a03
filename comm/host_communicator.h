// The part of a communicator over host memory that does not depend on how ranks reach each other.
#pragma once

#include <chrono>
#include <cstddef>

#include "comm/communicator.h"
#include "comm/staging.h"

namespace moesaic {

struct RowChecks;

/// Checks a verb's arguments, enqueues it on a host stream, and hands plain bytes to the implementation,
/// whose `..._now` functions run when the stream gets there and return when this rank's part is done. On a
/// GPU's stream that is before the verb returns, and the bytes are copies of the GPU's.
class HostCommunicator : public Communicator {
  public:
    using Communicator::Communicator;

    void all_to_all_rows(Stream& stream, ConstTensorView send, Counts send_rows, TensorView recv,
                         Counts recv_rows, Label label) final;
    void all_gather_rows(Stream& stream, ConstTensorView mine, TensorView all, Counts rows,
                         Label label) final;
    void broadcast(Stream& stream, TensorView data, int root, Label label) final;
    void send(Stream& stream, ConstTensorView data, int peer, Label label) final;
    void recv(Stream& stream, TensorView data, int peer, Label label) final;

  protected:
    /// Peer p's rows stand behind those of peers 0..p-1 in both buffers.
    struct Exchange {
        const std::byte* send;
        Counts send_rows;
        std::byte* recv;
        Counts recv_rows;
        i64 row_bytes;  ///< 0: this rank has no rows at all
        Label label;
    };
    struct Gather {
        const std::byte* mine;
        std::byte* all;
        Counts rows;
        i64 row_bytes;  ///< 0: nobody has rows
        Label label;
    };
    struct Message {
        std::byte* data;  // not written to where the verb only reads
        i64 bytes;
        int peer;  ///< a broadcast's root
        Label label;
    };

    virtual void exchange_now(const Exchange& exchange) = 0;
    virtual void gather_now(const Gather& gather) = 0;
    virtual void broadcast_now(const Message& message) = 0;
    virtual void send_now(const Message& message) = 0;
    virtual void recv_now(const Message& message) = 0;

    void reduce_in_order(Stream& stream, std::shared_ptr<Tensor> parts, TensorView into,
                         ReduceOp op) override;

  private:
    void timed_exchange(const Exchange& exchange, const RowChecks& checks);
    void spoil(const Exchange& exchange, const RowChecks& checks) const;
    void compare_checksums(const Exchange& exchange);
    void timed_gather(const Gather& gather);
    /// What was waiting where it carried only so many bytes is booked as that too.
    void count_since(std::chrono::steady_clock::time_point start, i64 bytes);
    [[nodiscard]] FlightRecorder::Call pairwise_flight(std::string_view verb, i64 bytes,
                                                       const Label& label) const;
    void check_peer(int peer, std::string_view verb, const Label& label) const;

    StagingPool staging_;
};

}  // namespace moesaic
