// Ranks that compute on GPUs, over NCCL.
#pragma once

#include <nccl.h>

#include "comm/communicator.h"
#include "comm/nccl/nccl_watch.h"
#include "comm/nccl_module.h"

namespace moesaic {

/// How long NCCL may take to start: half a time-out, so that others still wait when a rank says that it
/// failed.
[[nodiscard]] inline double start_up_seconds(const Communicator& host) {
    return 0.5 * host.timeout_seconds();
}

/// Verbs on a GPU's stream are enqueued there and wait for nothing; host memory on it goes through the
/// device's. Verbs on host streams, barriers, windows and all that is agreed at start-up go over `host`, a
/// communicator of the same ranks. Whoever waits for a stream that a verb was enqueued on notices errors,
/// time-outs and failed ranks (NcclWatch). One thread issues all verbs of a rank; with
/// NCCL_LAUNCH_ORDER_IMPLICIT, which connect() sets, communicators on several streams then cannot wait for
/// each other in a circle.
class NcclCommunicator final : public Communicator {
  public:
    /// Collective over `host`, which has to outlive the result; takes the current CUDA device. Null on every
    /// rank, and why, where a rank could not join.
    [[nodiscard]] static std::unique_ptr<Communicator> connect(Communicator& host, const NcclId& id,
                                                               std::string* problem);
    ~NcclCommunicator() override;

    [[nodiscard]] bool connected() const override { return host_.connected(); }
    [[nodiscard]] Topology topology() const override { return host_.topology(); }

    void all_to_all_rows(Stream& stream, ConstTensorView send, Counts send_rows, TensorView recv,
                         Counts recv_rows, Label label) override;
    void all_gather_rows(Stream& stream, ConstTensorView mine, TensorView all, Counts rows,
                         Label label) override;
    void broadcast(Stream& stream, TensorView data, int root, Label label) override;
    void barrier(Label label) override { host_.barrier(label); }
    void send(Stream& stream, ConstTensorView data, int peer, Label label) override;
    void recv(Stream& stream, TensorView data, int peer, Label label) override;
    [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key, std::string name) override;
    void abort(std::string_view why) noexcept override;

  protected:
    [[nodiscard]] std::unique_ptr<SharedWindow> make_window(i64 bytes, Label label) override;
    void all_to_all_even_rows(Stream& stream, ConstTensorView send, i64 rows, TensorView recv,
                              Label label) override;
    void reduce_in_order(Stream& stream, std::shared_ptr<Tensor> parts, TensorView into,
                         ReduceOp op) override;

  private:
    NcclCommunicator(Communicator& host, std::unique_ptr<Communicator> owned_host, ncclComm_t handle,
                     std::shared_ptr<NcclWatch> watch);

    struct Operand;
    struct Target;
    [[nodiscard]] FlightRecorder::Call call_of(std::string_view verb, const Label& label, i64 rows,
                                               i64 row_bytes) const;
    /// One kernel of NCCL: what `issue` asks for, which may be nothing.
    template <class Issue>
    void enqueue(GpuStream& stream, const FlightRecorder::Call& call, const Label& label, bool anything,
                 const Issue& issue);
    void exchange_with_peers(GpuStream& stream, const std::byte* send, Counts send_rows, std::byte* recv,
                             Counts recv_rows, i64 row_bytes, const Label& label);
    void check(ncclResult_t result, std::string_view verb, const Label& label) const;
    /// Collective over this communicator: a byte from every rank to every rank.
    void try_out();

    Communicator& host_;
    std::unique_ptr<Communicator> owned_host_;  // of a split
    ncclComm_t handle_;                         // null where this rank is alone
    std::shared_ptr<NcclWatch> watch_;
    int exceptions_;  // in flight when this was made
};

}  // namespace moesaic
