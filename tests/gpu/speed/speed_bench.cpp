#include "tests/gpu/speed/speed_bench.h"

#include <algorithm>
#include <vector>

#include "runtime/cuda/check.h"

namespace moesaic::speed {

using cuda::check;

SpeedBench::SpeedBench(int repeats)
    : repeats_(repeats), backend_(0), stream_(backend_.make_stream("compute")) {
    for (cudaEvent_t* event : {&start_, &end_})
        check(cudaEventCreateWithFlags(event, cudaEventDefault), "making an event");
}

SpeedBench::~SpeedBench() {
    cudaEventDestroy(start_);
    cudaEventDestroy(end_);
}

std::string SpeedBench::device_name() const {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, 0), "reading the device's properties");
    return properties.name;
}

Tensor SpeedBench::zeros(Shape shape, DType dtype) {
    Tensor values = backend_.allocate(shape, dtype);
    backend_.zero(*stream_, values);
    return values;
}

Tensor SpeedBench::random(Shape shape, DType dtype) {
    Tensor values = backend_.allocate(shape, dtype == DType::bf16 ? DType::f32 : dtype);
    backend_.random_fill(*stream_, {.values = values});
    if (dtype != DType::bf16) return values;
    Tensor narrow = backend_.allocate(shape, dtype);
    backend_.convert(*stream_, values, narrow);
    stream_->synchronize();
    return narrow;
}

Tensor SpeedBench::indices(Shape shape, i64 step, i64 limit, i64 first) {
    Tensor values = backend_.allocate(shape, DType::int32);
    stream_->synchronize();  // what had this memory before
    for (i64 i = 0; i < shape.elements(); ++i)
        values.as<i32>()[i] = static_cast<i32>((first + i * step) % limit);
    return values;
}

Seconds SpeedBench::time(const std::function<void()>& work) {
    constexpr int kWarmUp = 3, kFewest = 3;
    constexpr double kLongestWarmUp = 0.2, kLongest = 1;
    const auto handle = dynamic_cast<GpuStream&>(*stream_).handle();
    const auto once = [&] {
        check(cudaEventRecord(start_, handle), "recording an event");
        work();
        check(cudaEventRecord(end_, handle), "recording an event");
        stream_->synchronize();
        float milliseconds = 0;
        check(cudaEventElapsedTime(&milliseconds, start_, end_), "timing");
        return 1e-3 * std::max(1e-6, static_cast<double>(milliseconds));
    };
    double spent = 0;
    for (int i = 0; i < kWarmUp && spent < kLongestWarmUp; ++i) spent += once();
    std::vector<double> seconds;
    spent = 0;
    for (int i = 0; i < repeats_ && (i < kFewest || spent < kLongest); ++i) {
        seconds.push_back(once());
        spent += seconds.back();
    }
    std::ranges::sort(seconds);
    return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

}  // namespace moesaic::speed
