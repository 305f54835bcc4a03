// A stream of a GPU that takes host work too, in its order.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <array>
#include <string>

#include "runtime/cuda/gpu_stream.h"

namespace moesaic {

/// Kernels are enqueued and run later. Work of the host (a communicator that is no GPU's) waits for them and
/// runs at once on the calling thread, so that one thread makes all MPI calls.
class CudaStream final : public GpuStream {
  public:
    explicit CudaStream(std::string_view name);
    ~CudaStream() override;
    CudaStream(const CudaStream&) = delete;
    CudaStream& operator=(const CudaStream&) = delete;

    [[nodiscard]] std::string_view name() const override { return name_; }
    [[nodiscard]] Event record() override;
    void wait(const Event& event) override;
    void synchronize() override;
    void run(std::function<void()> work) override;
    [[nodiscard]] bool inline_execution() const override { return false; }

    [[nodiscard]] cudaStream_t handle() const override { return handle_; }
    /// For products on this stream alone: cuBLAS promises the same bits in every run where no other stream
    /// uses the handle's workspace at the same time.
    [[nodiscard]] cublasHandle_t products();
    void set_guard(std::shared_ptr<StreamGuard> guard) override { guard_ = std::move(guard); }

  private:
    // Positions share events: whoever waits for an old one waits for a later record of the same stream.
    static constexpr u64 kEvents = 64;

    std::string name_;
    cudaStream_t handle_ = nullptr;
    cublasHandle_t products_ = nullptr;  // from the first product on
    std::array<cudaEvent_t, kEvents> events_{};
    u64 recorded_ = 0;
    std::shared_ptr<StreamGuard> guard_;
};

}  // namespace moesaic
