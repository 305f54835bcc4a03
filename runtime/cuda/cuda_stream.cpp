#include "runtime/cuda/cuda_stream.h"

#include "runtime/base/log.h"
#include "runtime/cuda/check.h"

namespace moesaic {

using cuda::check;

CudaStream::CudaStream(std::string_view name) : name_(name) {
    check(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "making a stream");
    for (cudaEvent_t& event : events_)
        check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
}

CudaStream::~CudaStream() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
    cudaStreamDestroy(handle_);
}

Event CudaStream::record() {
    ++recorded_;
    check(cudaEventRecord(events_[recorded_ % kEvents], handle_), "recording an event");
    return {this, recorded_};
}

void CudaStream::wait(const Event& event) {
    if (!event.stream || event.stream == this) return;
    const auto& other = static_cast<const CudaStream&>(*event.stream);
    check(cudaStreamWaitEvent(handle_, other.events_[event.position % kEvents], 0), "waiting for an event");
}

void CudaStream::synchronize() {
    check(cudaGetLastError(), name_);
    check(cudaStreamSynchronize(handle_), name_);
}

void CudaStream::run(std::function<void()> work) {
    synchronize();
    work();
}

}  // namespace moesaic
