// The forward of a layer with experts, a row of the roofline each.
#include <algorithm>
#include <array>

#include "tests/gpu/speed/speed_bench.h"

namespace moesaic::speed {

namespace {

Seconds rms_norm(SpeedBench& bench, const MoeShape& shape) {
    Tensor x = bench.random({shape.tokens, shape.width}, DType::bf16);
    Tensor weight = bench.random({shape.width}, DType::bf16);
    Tensor y = bench.empty({shape.tokens, shape.width}, DType::bf16);
    Tensor inverse = bench.empty({shape.tokens}, DType::f32);
    return bench.time([&] {
        bench.backend().rms_norm(bench.stream(), {.x = x, .weight = weight, .y = y, .inverse_rms = inverse});
    });
}

Seconds router_logits(SpeedBench& bench, const MoeShape& shape) {
    Tensor x = bench.random({shape.tokens, shape.width}, DType::bf16);
    Tensor weight = bench.random({shape.experts, shape.width}, DType::bf16);
    Tensor logits = bench.empty({shape.tokens, shape.experts}, DType::f32);
    return bench.time(
        [&] { bench.backend().gemm(bench.stream(), {.a = x, .b = weight, .c = logits, .trans_b = true}); });
}

Seconds softmax(SpeedBench& bench, const MoeShape& shape) {
    Tensor logits = bench.random({shape.tokens, shape.experts}, DType::f32);
    Tensor probability = bench.empty({shape.tokens, shape.experts}, DType::f32);
    Tensor log_sum = bench.empty({shape.tokens}, DType::f32);
    return bench.time([&] {
        bench.backend().row_softmax(bench.stream(),
                                    {.logits = logits, .probability = probability, .log_sum_exp = log_sum});
    });
}

Seconds top_k(SpeedBench& bench, const MoeShape& shape) {
    Tensor scores = bench.random({shape.tokens, shape.experts}, DType::f32);
    Tensor index = bench.empty({shape.tokens, shape.top_k}, DType::int32);
    Tensor value = bench.empty({shape.tokens, shape.top_k}, DType::f32);
    return bench.time(
        [&] { bench.backend().top_k(bench.stream(), {.scores = scores, .index = index, .value = value}); });
}

Seconds sort_by_expert(SpeedBench& bench, const MoeShape& shape) {
    Tensor scores = bench.random({shape.tokens, shape.experts}, DType::f32);
    Tensor index = bench.empty({shape.tokens, shape.top_k}, DType::int32);
    Tensor value = bench.empty({shape.tokens, shape.top_k}, DType::f32);
    bench.backend().top_k(bench.stream(), {.scores = scores, .index = index, .value = value});
    Tensor order = bench.empty({shape.rows()}, DType::int32);
    Tensor counts = bench.empty({shape.experts}, DType::int64);
    return bench.time([&] {
        bench.backend().group_by_key(
            bench.stream(), {.key = index.view().reshaped({shape.rows()}), .order = order, .counts = counts});
    });
}

Seconds rows_to_send_order(SpeedBench& bench, const MoeShape& shape) {
    Tensor x = bench.random({shape.tokens, shape.width}, DType::bf16);
    Tensor source = bench.indices({shape.rows()}, 7, shape.tokens);
    Tensor sent = bench.empty({shape.rows(), shape.width}, DType::bf16);
    return bench.time(
        [&] { bench.backend().gather_rows(bench.stream(), {.in = x, .index = source, .out = sent}); });
}

Seconds gate_and_up(SpeedBench& bench, const MoeShape& shape) {
    return grouped_product(
        bench, {"", even_groups(shape.rows(), shape.local_experts()), 2 * shape.hidden, shape.width});
}

Seconds down(SpeedBench& bench, const MoeShape& shape) {
    return grouped_product(bench,
                           {"", even_groups(shape.rows(), shape.local_experts()), shape.width, shape.hidden});
}

Seconds swiglu_of(SpeedBench& bench, i64 rows, i64 hidden) {
    Tensor x = bench.random({rows, 2 * hidden}, DType::bf16);
    Tensor y = bench.empty({rows, hidden}, DType::bf16);
    return bench.time([&] { bench.backend().activation(bench.stream(), {.x = x, .y = y}); });
}

Seconds swiglu(SpeedBench& bench, const MoeShape& shape) {
    return swiglu_of(bench, shape.rows(), shape.hidden);
}

Seconds weighted_sum(SpeedBench& bench, const MoeShape& shape) {
    Tensor rows = bench.random({shape.rows(), shape.width}, DType::bf16);
    Tensor slot = bench.indices({shape.tokens, shape.top_k}, 1, shape.rows());
    Tensor weight = bench.random({shape.tokens, shape.top_k}, DType::f32);
    Tensor y = bench.empty({shape.tokens, shape.width}, DType::bf16);
    return bench.time([&] {
        bench.backend().combine_rows(bench.stream(), {.rows = rows, .slot = slot, .weight = weight, .y = y});
    });
}

Seconds dense(SpeedBench& bench, i64 m, i64 n, i64 k) {
    Tensor a = bench.random({m, k}, DType::bf16), b = bench.random({n, k}, DType::bf16);
    Tensor c = bench.empty({m, n}, DType::bf16);
    return bench.time(
        [&] { bench.backend().gemm(bench.stream(), {.a = a, .b = b, .c = c, .trans_b = true}); });
}

Seconds shared_gate_and_up(SpeedBench& bench, const MoeShape& shape) {
    return dense(bench, shape.tokens, 2 * shape.hidden * shape.shared_experts, shape.width);
}

Seconds shared_swiglu(SpeedBench& bench, const MoeShape& shape) {
    return swiglu_of(bench, shape.tokens, shape.hidden * shape.shared_experts);
}

Seconds shared_down(SpeedBench& bench, const MoeShape& shape) {
    return dense(bench, shape.tokens, shape.width, shape.hidden * shape.shared_experts);
}

constexpr std::array kForward{
    MeasuredKernel{"RMSNorm", rms_norm},
    MeasuredKernel{"router logits", router_logits},
    MeasuredKernel{"softmax", softmax},
    MeasuredKernel{"top k", top_k},
    MeasuredKernel{"sort by expert", sort_by_expert},
    MeasuredKernel{"rows to send order", rows_to_send_order},
    MeasuredKernel{"experts: gate, up", gate_and_up},
    MeasuredKernel{"SwiGLU", swiglu},
    MeasuredKernel{"experts: down", down},
    MeasuredKernel{"weighted sum", weighted_sum},
    MeasuredKernel{"shared: gate, up", shared_gate_and_up},
    MeasuredKernel{"shared: SwiGLU", shared_swiglu},
    MeasuredKernel{"shared: down", shared_down},
};

}  // namespace

std::span<const MeasuredKernel> forward_kernels() {
    return kForward;
}

}  // namespace moesaic::speed
