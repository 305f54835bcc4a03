// A GPU's back end, operands for it, and how long its operations take.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <memory>

#include "runtime/cuda/cuda_backend.h"
#include "runtime/machine/roofline.h"

namespace moesaic::speed {

/// Median, least and most of several.
struct Seconds {
    double median, least, most;
};

class SpeedBench {
  public:
    /// Every time is taken `repeats` times after a warm-up of three, but no longer than about a second, and
    /// at least three times.
    explicit SpeedBench(int repeats);
    ~SpeedBench();
    SpeedBench(const SpeedBench&) = delete;
    SpeedBench& operator=(const SpeedBench&) = delete;

    CudaBackend& backend() { return backend_; }
    Stream& stream() { return *stream_; }
    [[nodiscard]] std::string device_name() const;

    Tensor empty(Shape shape, DType dtype) { return backend_.allocate(shape, dtype); }
    Tensor zeros(Shape shape, DType dtype);
    /// Normal numbers: a product of zeros would draw less power, and so be faster.
    Tensor random(Shape shape, DType dtype);
    /// first, first + step, first + 2 step, ... modulo `limit`.
    Tensor indices(Shape shape, i64 step, i64 limit, i64 first = 0);

    /// On the device, between two events. Everything fits a small GPU cache where it is small: then rates are
    /// above those of memory.
    Seconds time(const std::function<void()>& work);

  private:
    int repeats_;
    CudaBackend backend_;
    std::unique_ptr<Stream> stream_;
    cudaEvent_t start_ = nullptr, end_ = nullptr;
};

/// One row of the roofline (runtime/machine/roofline.h) as the back end does it.
struct MeasuredKernel {
    std::string_view name;
    Seconds (*measure)(SpeedBench& bench, const MoeShape& shape);
};
[[nodiscard]] std::span<const MeasuredKernel> forward_kernels();
[[nodiscard]] std::span<const MeasuredKernel> backward_kernels();
[[nodiscard]] std::span<const MeasuredKernel> model_kernels();

/// A grouped product whose rows are shared out in some way; or its groups one by one, as single products.
struct Grouping {
    std::string_view name;
    std::vector<i64> rows;
    i64 n, k;
    bool one_by_one = false;
};
[[nodiscard]] Seconds grouped_product(SpeedBench& bench, const Grouping& grouping);
[[nodiscard]] Seconds grouped_input_gradient(SpeedBench& bench, const Grouping& grouping);
[[nodiscard]] Seconds grouped_weight_gradient(SpeedBench& bench, const Grouping& grouping);
/// `rows` in `groups` equal parts; the last takes what is over.
[[nodiscard]] std::vector<i64> even_groups(i64 rows, i64 groups);

}  // namespace moesaic::speed
