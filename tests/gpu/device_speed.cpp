// How fast kernels and products are, beside what the same device does at best in the same run: memory against
// a copy on the device, products against one large square product in bf16. Shapes are those of a
// DeepSeek-V3-like layer.
//
//   device_speed [TOKENS [REPEATS]]        4096, 20; the emulator, which tells no time, wants few
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <vector>

#include "runtime/cuda/check.h"
#include "runtime/cuda/cuda_backend.h"

namespace moesaic {
namespace {

using cuda::check;

/// Median, least and most of several.
struct Seconds {
    double median, least, most;
};

class Bench {
  public:
    explicit Bench(int repeats) : repeats_(repeats), backend_(0), stream_(backend_.make_stream("compute")) {
        for (cudaEvent_t* event : {&start_, &end_})
            check(cudaEventCreateWithFlags(event, cudaEventDefault), "making an event");
    }
    ~Bench() {
        cudaEventDestroy(start_);
        cudaEventDestroy(end_);
    }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;

    CudaBackend& backend() { return backend_; }
    Stream& stream() { return *stream_; }

    /// Normal numbers: a product of zeros would draw less power, and so be faster.
    Tensor random(Shape shape, DType dtype) {
        Tensor values = backend_.allocate(shape, dtype == DType::bf16 ? DType::f32 : dtype);
        backend_.random_fill(*stream_, {.values = values});
        if (dtype != DType::bf16) return values;
        Tensor narrow = backend_.allocate(shape, dtype);
        backend_.convert(*stream_, values, narrow);
        stream_->synchronize();
        return narrow;
    }
    /// 0, step, 2 step, ... modulo `limit`, written by the host.
    Tensor indices(Shape shape, i64 step, i64 limit) {
        Tensor values = backend_.allocate(shape, DType::int32);
        for (i64 i = 0; i < shape.elements(); ++i) values.as<i32>()[i] = static_cast<i32>(i * step % limit);
        return values;
    }

    Seconds time(const std::function<void()>& work) {
        constexpr int kWarmUp = 3;
        const auto handle = dynamic_cast<GpuStream&>(*stream_).handle();
        std::vector<double> seconds;
        for (int i = 0; i < kWarmUp + repeats_; ++i) {
            check(cudaEventRecord(start_, handle), "recording an event");
            work();
            check(cudaEventRecord(end_, handle), "recording an event");
            stream_->synchronize();
            float milliseconds = 0;
            check(cudaEventElapsedTime(&milliseconds, start_, end_), "timing");
            if (i >= kWarmUp) seconds.push_back(1e-3 * std::max(1e-6, static_cast<double>(milliseconds)));
        }
        std::ranges::sort(seconds);
        return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
    }

  private:
    int repeats_;
    CudaBackend backend_;
    std::unique_ptr<Stream> stream_;
    cudaEvent_t start_ = nullptr, end_ = nullptr;
};

/// `amount` bytes or operations; `peak` of them a second, or 0.
double print(const char* name, const Seconds& seconds, double amount, const char* unit, double peak) {
    const double rate = amount / seconds.median;
    std::printf("%-44s %10.1f us [%.1f, %.1f]  %8.3f %s%s\n", name, 1e6 * seconds.median, 1e6 * seconds.least,
                1e6 * seconds.most, 1e-12 * rate, unit,
                peak > 0 ? fmt::format("  {:5.1f} %", 100 * rate / peak).c_str() : "");
    return rate;
}

constexpr double kBf16 = 2, kReal = 4;
constexpr const char *kBytes = "TB/s", *kFlops = "TFLOP/s";

double copies(Bench& bench, i64 elements) {
    Tensor from = bench.random({elements}, DType::f32), to = bench.backend().allocate({elements}, DType::f32);
    const Seconds seconds = bench.time([&] { bench.backend().copy(bench.stream(), from, to); });
    return print("copy on the device (read and written)", seconds, 2 * kReal * static_cast<double>(elements),
                 kBytes, 0);
}

double square_product(Bench& bench, i64 n, DType dtype, const char* name, double peak) {
    Tensor a = bench.random({n, n}, dtype), b = bench.random({n, n}, dtype);
    Tensor c = bench.backend().allocate({n, n}, dtype);
    const Seconds seconds =
        bench.time([&] { bench.backend().gemm(bench.stream(), {.a = a, .b = b, .c = c, .trans_b = true}); });
    return print(name, seconds,
                 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n), kFlops,
                 peak);
}

/// Four experts with 1/10, 2/10, 3/10 and 4/10 of the rows.
void grouped_product(Bench& bench, i64 rows, i64 width, i64 hidden, double peak) {
    std::vector<i64> counts{rows / 10, 2 * rows / 10, 3 * rows / 10, 0};
    counts[3] = rows - std::accumulate(counts.begin(), counts.end(), i64{0});
    Tensor a = bench.random({rows, width}, DType::bf16);
    Tensor b = bench.random({4, 2 * hidden, width}, DType::bf16);
    Tensor c = bench.backend().allocate({rows, 2 * hidden}, DType::bf16);
    const Seconds seconds = bench.time([&] {
        bench.backend().grouped_gemm(bench.stream(),
                                     {.a = a, .b = b, .c = c, .rows_per_group = counts, .trans_b = true});
    });
    print("experts: gate, up; four uneven groups", seconds,
          4.0 * static_cast<double>(rows) * static_cast<double>(width) * static_cast<double>(hidden), kFlops,
          peak);
}

void router_kernels(Bench& bench, i64 tokens, i64 experts, i64 choices, double peak) {
    CudaBackend& backend = bench.backend();
    Stream& stream = bench.stream();
    const auto scores = static_cast<double>(tokens * experts), chosen = static_cast<double>(tokens * choices);
    Tensor logits = bench.random({tokens, experts}, DType::f32);
    Tensor probability = backend.allocate({tokens, experts}, DType::f32);
    Tensor log_sum = backend.allocate({tokens}, DType::f32);
    print("softmax", bench.time([&] {
        backend.row_softmax(stream, {.logits = logits, .probability = probability, .log_sum_exp = log_sum});
    }),
          2 * scores * kReal, kBytes, peak);
    Tensor index = backend.allocate({tokens, choices}, DType::int32);
    Tensor value = backend.allocate({tokens, choices}, DType::f32);
    print("top k",
          bench.time([&] { backend.top_k(stream, {.scores = probability, .index = index, .value = value}); }),
          (scores + 2 * chosen) * kReal, kBytes, peak);
    Tensor order = backend.allocate({tokens * choices}, DType::int32);
    Tensor counts = backend.allocate({experts}, DType::int64);
    print("sort by expert", bench.time([&] {
        backend.group_by_key(
            stream, {.key = index.view().reshaped({tokens * choices}), .order = order, .counts = counts});
    }),
          3 * chosen * kReal, kBytes, peak);
}

void row_kernels(Bench& bench, i64 tokens, i64 width, i64 hidden, i64 choices, double peak) {
    CudaBackend& backend = bench.backend();
    Stream& stream = bench.stream();
    const i64 rows = tokens * choices;
    const auto elements = static_cast<double>(tokens * width), moved = static_cast<double>(rows * width);
    Tensor x = bench.random({tokens, width}, DType::bf16);
    Tensor weight = bench.random({width}, DType::bf16);
    Tensor y = backend.allocate({tokens, width}, DType::bf16);
    Tensor inverse = backend.allocate({tokens}, DType::f32);
    print("RMSNorm", bench.time([&] {
        backend.rms_norm(stream, {.x = x, .weight = weight, .y = y, .inverse_rms = inverse});
    }),
          2 * elements * kBf16, kBytes, peak);
    Tensor source = bench.indices({rows}, 7, tokens), slot = bench.indices({tokens, choices}, 1, rows);
    Tensor sent = backend.allocate({rows, width}, DType::bf16);
    print("rows to send order",
          bench.time([&] { backend.gather_rows(stream, {.in = x, .index = source, .out = sent}); }),
          (elements + moved) * kBf16, kBytes, peak);
    Tensor weights = bench.random({tokens, choices}, DType::f32);
    print("weighted sum", bench.time([&] {
        backend.combine_rows(stream, {.rows = sent, .slot = slot, .weight = weights, .y = y});
    }),
          (elements + moved) * kBf16, kBytes, peak);
    Tensor both = bench.random({rows, 2 * hidden}, DType::bf16);
    Tensor after = backend.allocate({rows, hidden}, DType::bf16);
    print("SwiGLU", bench.time([&] { backend.activation(stream, {.x = both, .y = after}); }),
          3.0 * static_cast<double>(rows * hidden) * kBf16, kBytes, peak);
}

void update(Bench& bench, i64 elements, double peak) {
    Tensor parameter = bench.random({elements}, DType::f32), first = bench.random({elements}, DType::f32);
    Tensor second = bench.backend().allocate({elements}, DType::f32);
    Tensor gradient = bench.random({elements}, DType::f32);
    bench.backend().fill(bench.stream(), 1, second);
    const Seconds seconds = bench.time([&] {
        bench.backend().adamw(bench.stream(), {.parameter = parameter,
                                               .first_moment = first,
                                               .second_moment = second,
                                               .gradient = gradient,
                                               .lr = 1e-3});
    });
    print("AdamW", seconds, 7 * kReal * static_cast<double>(elements), kBytes, peak);
}

/// Causal, heads of 128 columns; the products of the half that is computed.
void attention(Bench& bench, i64 tokens, i64 heads, double peak) {
    constexpr i64 kHeadDim = 128;
    const i64 width = heads * kHeadDim;
    Tensor q = bench.random({tokens, width}, DType::bf16), k = bench.random({tokens, width}, DType::bf16),
           v = bench.random({tokens, width}, DType::bf16);
    Tensor out = bench.backend().allocate({tokens, width}, DType::bf16);
    Tensor sums = bench.backend().allocate({heads, tokens}, DType::f32);
    const Seconds seconds = bench.time([&] {
        bench.backend().attention(bench.stream(), {.q = q,
                                                   .k = k,
                                                   .v = v,
                                                   .out = out,
                                                   .log_sum_exp = sums,
                                                   .heads = heads,
                                                   .kv_heads = heads,
                                                   .head_dim = kHeadDim,
                                                   .seq_len = tokens});
    });
    print("attention, causal, forward", seconds,
          2.0 * static_cast<double>(tokens) * static_cast<double>(tokens) * static_cast<double>(width),
          kFlops, peak);
}

void run(i64 tokens, int repeats) {
    // Of a DeepSeek-V3-like layer at 4096 tokens; smaller ones in proportion, in whole vectors.
    const auto part = [&](i64 whole) { return std::max<i64>(32, whole * tokens / 4096 / 32 * 32); };
    const i64 width = part(7168), hidden = part(2048), experts = part(256), choices = 8;
    Bench bench(repeats);
    std::printf("# median of %d [least, most], after 3; shares of the copy and of the square bf16 product\n",
                repeats);
    const double memory = copies(bench, part(8192) * part(8192) * 4);
    const double flops = square_product(bench, part(8192), DType::bf16, "product, bf16, square", 0);
    square_product(bench, part(4096), DType::f32, "product, fp32, square", flops);
    grouped_product(bench, tokens * choices, width, hidden, flops);
    row_kernels(bench, tokens, width, hidden, choices, memory);
    router_kernels(bench, tokens, experts, choices, memory);
    update(bench, part(4096) * part(4096), memory);
    attention(bench, tokens, part(4096) / 128 > 0 ? part(4096) / 128 : 1, flops);
}

}  // namespace
}  // namespace moesaic

int main(int count, char** words) {
    const long tokens = count > 1 ? std::atol(words[1]) : 4096,
               repeats = count > 2 ? std::atol(words[2]) : 20;
    if (count > 3 || tokens < 1 || repeats < 1 || repeats > 10000) {
        std::fprintf(stderr, "usage: %s [TOKENS [REPEATS]]\n", words[0]);
        return 2;
    }
    try {
        moesaic::run(tokens, static_cast<int>(repeats));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
