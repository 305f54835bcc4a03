#include "runtime/cuda/cuda_stream.h"

#include <chrono>
#include <thread>

#include "runtime/cuda/check.h"

namespace moesaic {

using cuda::check;

CudaStream::CudaStream(std::string_view name) : name_(name) {
    check(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "making a stream");
    for (cudaEvent_t& event : events_)
        check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
}

CudaStream::~CudaStream() {
    if (products_) cublasDestroy(products_);
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
    cudaStreamDestroy(handle_);
}

cublasHandle_t CudaStream::products() {
    if (products_) return products_;
    check(cublasCreate(&products_), "starting cuBLAS");
    check(cublasSetMathMode(products_,
                            static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH |
                                                      CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)),
          "choosing how cuBLAS adds");
    check(cublasSetStream(products_, handle_), "choosing a stream");
    return products_;
}

Event CudaStream::record() {
    ++recorded_;
    check(cudaEventRecord(events_[recorded_ % kEvents], handle_), "recording an event");
    return {this, recorded_};
}

void CudaStream::wait(const Event& event) {
    if (!event.stream || event.stream == this) return;
    const auto& other = static_cast<const CudaStream&>(*event.stream);
    if (!guard_) guard_ = other.guard_;
    check(cudaStreamWaitEvent(handle_, other.events_[event.position % kEvents], 0), "waiting for an event");
}

void CudaStream::synchronize() {
    check(cudaGetLastError(), name_);
    if (!guard_) {
        check(cudaStreamSynchronize(handle_), name_);
        return;
    }
    // CUDA would wait for ever for a rank that does not come.
    constexpr int kSpins = 2000, kPollEvery = 16;
    for (int asked = 0; cudaStreamQuery(handle_) == cudaErrorNotReady; ++asked) {
        (void)cudaGetLastError();  // "not ready" is none
        if (asked % kPollEvery == 0) guard_->poll();
        if (asked > kSpins) std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    check(cudaGetLastError(), name_);
    guard_->poll();
}

void CudaStream::run(std::function<void()> work) {
    synchronize();
    work();
}

}  // namespace moesaic
