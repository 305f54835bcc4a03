#include "launch/bench/measurement.h"

#include <algorithm>
#include <cmath>

#include "runtime/cpu/peak.h"

namespace moesaic {

double quantile(std::vector<double> values, double q) {
    if (values.empty()) return 0;
    const double rank = std::ceil(q * static_cast<double>(values.size())) - 1;
    const auto place = static_cast<std::ptrdiff_t>(std::max(rank, 0.0));
    std::nth_element(values.begin(), values.begin() + place, values.end());
    return values[static_cast<std::size_t>(place)];
}

TimeSummary summary_of(const std::vector<double>& microseconds) {
    return {quantile(microseconds, 0), quantile(microseconds, 0.5), quantile(microseconds, 0.95),
            quantile(microseconds, 0.99)};
}

double RankTimes::mean_of(int rank) const {
    double sum = 0;
    for (i64 i = 0; i < iterations(); ++i) sum += at(rank, i);
    return sum / static_cast<double>(std::max<i64>(iterations(), 1));
}

std::vector<double> RankTimes::slowest() const {
    std::vector<double> slowest;
    for (i64 i = 0; i < iterations(); ++i) {
        double most = 0;
        for (int rank = 0; rank < ranks; ++rank) most = std::max(most, at(rank, i));
        slowest.push_back(most);
    }
    return slowest;
}

RankTimes gather_times(Communicator& world, std::vector<double> mine) {
    RankTimes times{world.size(), std::vector<double>(mine.size() * static_cast<std::size_t>(world.size()))};
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("times");
    world.all_gather(*stream, view_of(mine.data(), {1, std::ssize(mine)}),
                     view_of(times.us.data(), {world.size(), std::ssize(mine)}), {"times of all ranks"});
    stream->synchronize();
    return times;
}

PeakSamples::PeakSamples(Backend& backend, Stream& stream, int threads, DType dtype, double flops)
    : PeakSamples(threads, dtype) {
    if (backend.name() == "cpu" || !backend.computes()) return;
    constexpr i64 kLeast = 64, kMost = 8192, kMultiple = 64;
    const i64 wanted = static_cast<i64>(std::cbrt(flops / 2)) / kMultiple * kMultiple;
    const i64 extent = std::clamp(wanted, kLeast, kMost);
    const auto random = [&] {  // zeros would draw less power, and so be faster
        Tensor wide = backend.allocate({extent, extent}, accumulation_type(dtype));
        backend.random_fill(stream, {.values = wide});
        Tensor values = backend.allocate({extent, extent}, dtype);
        backend.convert(stream, wide, values);
        return values;
    };
    Tensor c = backend.allocate({extent, extent}, dtype);
    product_ = SquareProduct{&backend, &stream, random(), random(), std::move(c)};
    (void)product_->gflops();  // the library's first call finds its kernels
}

double PeakSamples::SquareProduct::gflops() {
    constexpr int kProducts = 3;
    stream->synchronize();
    Stopwatch watch;
    for (int i = 0; i < kProducts; ++i) backend->gemm(*stream, {.a = a, .b = b, .c = c, .trans_b = true});
    stream->synchronize();
    const auto extent = static_cast<double>(a.rows());
    return 1e-9 * kProducts * 2 * extent * extent * extent / watch.lap();
}

void PeakSamples::take(Communicator& world) {
    world.barrier({"measured peak"});
    if (product_) {
        samples_.push_back(product_->gflops());
        return;
    }
    samples_.push_back(1e-9 * (dtype_ == DType::bf16 ? measure_bf16_peak_flops(threads_)
                                                     : measure_peak_flops(threads_, dtype_ == DType::f64)));
}

double PeakSamples::sum_over(Communicator& world) const {
    double sum = gflops();
    HostStreamScheduler scheduler(StreamMode::inline_execution, 0);
    const auto stream = scheduler.make_stream("peak");
    world.all_reduce(*stream, view_of(&sum, {1}), ReduceOp::sum, {"measured peak"});
    return sum;
}

}  // namespace moesaic
