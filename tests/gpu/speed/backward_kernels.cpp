// The backward of a layer with experts, a row of the roofline each.
#include <array>

#include "tests/gpu/speed/speed_bench.h"

namespace moesaic::speed {

namespace {

Seconds weighted_sum(SpeedBench& bench, const MoeShape& shape) {
    Tensor rows = bench.random({shape.rows(), shape.width}, DType::bf16);
    Tensor slot = bench.indices({shape.tokens, shape.top_k}, 1, shape.rows());
    Tensor weight = bench.random({shape.tokens, shape.top_k}, DType::f32);
    Tensor dy = bench.random({shape.tokens, shape.width}, DType::bf16);
    Tensor d_rows = bench.empty({shape.rows(), shape.width}, DType::bf16);
    Tensor d_weight = bench.empty({shape.tokens, shape.top_k}, DType::f32);
    return bench.time([&] {
        bench.backend().combine_rows_backward(
            bench.stream(),
            {.rows = rows, .slot = slot, .weight = weight, .dy = dy, .d_rows = d_rows, .d_weight = d_weight});
    });
}

Grouping gate_and_up(const MoeShape& shape) {
    return {"", even_groups(shape.rows(), shape.local_experts()), 2 * shape.hidden, shape.width};
}
Grouping down(const MoeShape& shape) {
    return {"", even_groups(shape.rows(), shape.local_experts()), shape.width, shape.hidden};
}

Seconds down_input_gradient(SpeedBench& bench, const MoeShape& shape) {
    return grouped_input_gradient(bench, down(shape));
}
Seconds down_weight_gradient(SpeedBench& bench, const MoeShape& shape) {
    return grouped_weight_gradient(bench, down(shape));
}
Seconds gate_and_up_input_gradient(SpeedBench& bench, const MoeShape& shape) {
    return grouped_input_gradient(bench, gate_and_up(shape));
}
Seconds gate_and_up_weight_gradient(SpeedBench& bench, const MoeShape& shape) {
    return grouped_weight_gradient(bench, gate_and_up(shape));
}

Seconds swiglu_of(SpeedBench& bench, i64 rows, i64 hidden) {
    Tensor x = bench.random({rows, 2 * hidden}, DType::bf16), dy = bench.random({rows, hidden}, DType::bf16);
    Tensor dx = bench.empty({rows, 2 * hidden}, DType::bf16);
    return bench.time(
        [&] { bench.backend().activation_backward(bench.stream(), {.x = x, .dy = dy, .dx = dx}); });
}

Seconds swiglu(SpeedBench& bench, const MoeShape& shape) {
    return swiglu_of(bench, shape.rows(), shape.hidden);
}

Seconds sum_of_token_rows(SpeedBench& bench, const MoeShape& shape) {
    Tensor rows = bench.random({shape.rows(), shape.width}, DType::bf16);
    Tensor slot = bench.indices({shape.tokens, shape.top_k}, 1, shape.rows());
    Tensor y = bench.empty({shape.tokens, shape.width}, DType::bf16);
    return bench.time([&] {
        bench.backend().combine_rows(bench.stream(), {.rows = rows, .slot = slot, .weight = {}, .y = y});
    });
}

Seconds router_gradient(SpeedBench& bench, const MoeShape& shape) {
    Tensor logits = bench.random({shape.tokens, shape.experts}, DType::f32);
    Tensor probability = bench.empty({shape.tokens, shape.experts}, DType::f32);
    Tensor log_sum = bench.empty({shape.tokens}, DType::f32);
    bench.backend().row_softmax(bench.stream(),
                                {.logits = logits, .probability = probability, .log_sum_exp = log_sum});
    Tensor index = bench.empty({shape.tokens, shape.top_k}, DType::int32);
    Tensor weight = bench.empty({shape.tokens, shape.top_k}, DType::f32);
    bench.backend().top_k(bench.stream(), {.scores = probability, .index = index, .value = weight});
    Tensor d_weight = bench.random({shape.tokens, shape.top_k}, DType::f32);
    Tensor factor = bench.random({1, shape.experts}, DType::f64);
    Tensor d_logits = bench.empty({shape.tokens, shape.experts}, DType::f32);
    return bench.time([&] {
        bench.backend().router_backward(bench.stream(), {.probability = probability,
                                                         .log_sum_exp = log_sum,
                                                         .index = index,
                                                         .weight = weight,
                                                         .d_weight = d_weight,
                                                         .balance_factor = factor,
                                                         .rows_per_object = shape.tokens,
                                                         .z_scale = 1e-3,
                                                         .d_logits = d_logits});
    });
}

Seconds logits_input_gradient(SpeedBench& bench, const MoeShape& shape) {
    Tensor d_logits = bench.random({shape.tokens, shape.experts}, DType::f32);
    Tensor weight = bench.random({shape.experts, shape.width}, DType::bf16);
    Tensor dx = bench.zeros({shape.tokens, shape.width}, DType::bf16);
    return bench.time([&] {
        bench.backend().gemm(bench.stream(), {.a = d_logits, .b = weight, .c = dx, .accumulate = true});
    });
}

Seconds logits_weight_gradient(SpeedBench& bench, const MoeShape& shape) {
    Tensor d_logits = bench.random({shape.tokens, shape.experts}, DType::f32);
    Tensor x = bench.random({shape.tokens, shape.width}, DType::bf16);
    Tensor sum = bench.zeros({shape.experts, shape.width}, DType::f32);
    return bench.time([&] {
        bench.backend().gemm(bench.stream(),
                             {.a = d_logits, .b = x, .c = sum, .trans_a = true, .accumulate = true});
    });
}

Seconds dense_input_gradient(SpeedBench& bench, i64 rows, i64 n, i64 k) {
    Tensor dy = bench.random({rows, n}, DType::bf16), weight = bench.random({n, k}, DType::bf16);
    Tensor dx = bench.empty({rows, k}, DType::bf16);
    return bench.time([&] { bench.backend().gemm(bench.stream(), {.a = dy, .b = weight, .c = dx}); });
}

Seconds dense_weight_gradient(SpeedBench& bench, i64 rows, i64 n, i64 k) {
    Tensor dy = bench.random({rows, n}, DType::bf16), x = bench.random({rows, k}, DType::bf16);
    Tensor sum = bench.zeros({n, k}, DType::f32);
    return bench.time([&] {
        bench.backend().gemm(bench.stream(),
                             {.a = dy, .b = x, .c = sum, .trans_a = true, .accumulate = true});
    });
}

Seconds shared_down_input_gradient(SpeedBench& bench, const MoeShape& shape) {
    return dense_input_gradient(bench, shape.tokens, shape.width, shape.hidden * shape.shared_experts);
}
Seconds shared_swiglu(SpeedBench& bench, const MoeShape& shape) {
    return swiglu_of(bench, shape.tokens, shape.hidden * shape.shared_experts);
}
Seconds shared_down_weight_gradient(SpeedBench& bench, const MoeShape& shape) {
    return dense_weight_gradient(bench, shape.tokens, shape.width, shape.hidden * shape.shared_experts);
}
Seconds shared_gate_input_gradient(SpeedBench& bench, const MoeShape& shape) {
    return dense_input_gradient(bench, shape.tokens, 2 * shape.hidden * shape.shared_experts, shape.width);
}
Seconds shared_gate_weight_gradient(SpeedBench& bench, const MoeShape& shape) {
    return dense_weight_gradient(bench, shape.tokens, 2 * shape.hidden * shape.shared_experts, shape.width);
}

Seconds rms_norm(SpeedBench& bench, const MoeShape& shape) {
    Tensor x = bench.random({shape.tokens, shape.width}, DType::bf16);
    Tensor weight = bench.random({shape.width}, DType::bf16);
    Tensor y = bench.empty({shape.tokens, shape.width}, DType::bf16);
    Tensor inverse = bench.empty({shape.tokens}, DType::f32);
    bench.backend().rms_norm(bench.stream(), {.x = x, .weight = weight, .y = y, .inverse_rms = inverse});
    Tensor dy = bench.random({shape.tokens, shape.width}, DType::bf16);
    Tensor d_weight = bench.zeros({shape.width}, DType::f32);
    return bench.time([&] {
        bench.backend().rms_norm_backward(
            bench.stream(),
            {.x = x, .weight = weight, .inverse_rms = inverse, .dy = dy, .dx = y, .d_weight = d_weight});
    });
}

constexpr std::array kBackward{
    MeasuredKernel{"weighted sum, backward", weighted_sum},
    MeasuredKernel{"experts: down, input gradient", down_input_gradient},
    MeasuredKernel{"SwiGLU, backward", swiglu},
    MeasuredKernel{"experts: down, weight gradient", down_weight_gradient},
    MeasuredKernel{"experts: gate, up, input gradient", gate_and_up_input_gradient},
    MeasuredKernel{"experts: gate, up, weight gradient", gate_and_up_weight_gradient},
    MeasuredKernel{"sum of a token's rows", sum_of_token_rows},
    MeasuredKernel{"router's gradient", router_gradient},
    MeasuredKernel{"router logits, input gradient", logits_input_gradient},
    MeasuredKernel{"router logits, weight gradient", logits_weight_gradient},
    MeasuredKernel{"shared: down, input gradient", shared_down_input_gradient},
    MeasuredKernel{"shared: SwiGLU, backward", shared_swiglu},
    MeasuredKernel{"shared: down, weight gradient", shared_down_weight_gradient},
    MeasuredKernel{"shared: gate, up, input gradient", shared_gate_input_gradient},
    MeasuredKernel{"shared: gate, up, weight gradient", shared_gate_weight_gradient},
    MeasuredKernel{"RMSNorm, backward", rms_norm},
};

}  // namespace

std::span<const MeasuredKernel> backward_kernels() {
    return kBackward;
}

}  // namespace moesaic::speed
