// What a model has besides layers with experts, a row of the roofline each.
#include <array>

#include "tests/gpu/speed/speed_bench.h"

namespace moesaic::speed {

namespace {

Seconds embedding(SpeedBench& bench, const MoeShape& shape) {
    Tensor table = bench.random({shape.vocabulary, shape.width}, DType::bf16);
    Tensor index = bench.indices({shape.tokens}, 7919, shape.vocabulary);
    Tensor y = bench.empty({shape.tokens, shape.width}, DType::bf16);
    return bench.time(
        [&] { bench.backend().embedding(bench.stream(), {.table = table, .index = index, .y = y}); });
}

Seconds embedding_gradient(SpeedBench& bench, const MoeShape& shape) {
    Tensor index = bench.indices({shape.tokens}, 7919, shape.vocabulary);
    Tensor dy = bench.random({shape.tokens, shape.width}, DType::bf16);
    Tensor d_table = bench.zeros({shape.vocabulary, shape.width}, DType::f32);
    return bench.time([&] {
        bench.backend().embedding_backward(bench.stream(), {.index = index, .dy = dy, .d_table = d_table});
    });
}

Seconds rope(SpeedBench& bench, const MoeShape& shape) {
    const i64 width = shape.heads * shape.head_dim;
    Tensor x = bench.random({shape.tokens, width}, DType::bf16);
    Tensor cosine = bench.random({shape.seq_len, shape.head_dim / 2}, DType::f32);
    Tensor sine = bench.random({shape.seq_len, shape.head_dim / 2}, DType::f32);
    return bench.time([&] {
        bench.backend().rope(bench.stream(), {.x = x,
                                              .row_stride = width,
                                              .heads = shape.heads,
                                              .head_dim = shape.head_dim,
                                              .seq_len = shape.seq_len,
                                              .cosine = cosine,
                                              .sine = sine});
    });
}

/// Operands of attention and of its backward.
struct AttentionOperands {
    Tensor q, k, v, out, sums;
    AttentionOperands(SpeedBench& bench, const MoeShape& shape)
        : q(bench.random({shape.tokens, shape.heads * shape.head_dim}, DType::bf16)),
          k(bench.random({shape.tokens, shape.kv_heads * shape.head_dim}, DType::bf16)),
          v(bench.random({shape.tokens, shape.kv_heads * shape.head_dim}, DType::bf16)),
          out(bench.empty({shape.tokens, shape.heads * shape.head_dim}, DType::bf16)),
          sums(bench.empty({shape.heads, shape.tokens}, DType::f32)) {}

    void forward(SpeedBench& bench, const MoeShape& shape) {
        bench.backend().attention(bench.stream(), {.q = q,
                                                   .k = k,
                                                   .v = v,
                                                   .out = out,
                                                   .log_sum_exp = sums,
                                                   .heads = shape.heads,
                                                   .kv_heads = shape.kv_heads,
                                                   .head_dim = shape.head_dim,
                                                   .seq_len = shape.seq_len});
    }
};

Seconds attention(SpeedBench& bench, const MoeShape& shape) {
    AttentionOperands operands(bench, shape);
    return bench.time([&] { operands.forward(bench, shape); });
}

Seconds attention_backward(SpeedBench& bench, const MoeShape& shape) {
    AttentionOperands operands(bench, shape);
    operands.forward(bench, shape);
    Tensor d_out = bench.random(operands.out.shape(), DType::bf16);
    Tensor dq = bench.empty(operands.q.shape(), DType::bf16),
           dk = bench.empty(operands.k.shape(), DType::bf16);
    Tensor dv = bench.empty(operands.v.shape(), DType::bf16);
    return bench.time([&] {
        bench.backend().attention_backward(bench.stream(), {.q = operands.q,
                                                            .k = operands.k,
                                                            .v = operands.v,
                                                            .out = operands.out,
                                                            .log_sum_exp = operands.sums,
                                                            .d_out = d_out,
                                                            .dq = dq,
                                                            .dk = dk,
                                                            .dv = dv,
                                                            .heads = shape.heads,
                                                            .kv_heads = shape.kv_heads,
                                                            .head_dim = shape.head_dim,
                                                            .seq_len = shape.seq_len});
    });
}

Seconds residual_sum(SpeedBench& bench, const MoeShape& shape) {
    Tensor x = bench.random({shape.tokens, shape.width}, DType::bf16);
    Tensor y = bench.zeros({shape.tokens, shape.width}, DType::bf16);
    return bench.time([&] { bench.backend().add(bench.stream(), x, y); });
}

/// What a router made of random logits.
struct Routed {
    Tensor probability, log_sum, index, weight;
    Routed(SpeedBench& bench, const MoeShape& shape)
        : probability(bench.random({shape.tokens, shape.experts}, DType::f32)),
          log_sum(bench.empty({shape.tokens}, DType::f32)),
          index(bench.empty({shape.tokens, shape.top_k}, DType::int32)),
          weight(bench.empty({shape.tokens, shape.top_k}, DType::f32)) {
        Tensor logits = bench.random({shape.tokens, shape.experts}, DType::f32);
        bench.backend().row_softmax(bench.stream(),
                                    {.logits = logits, .probability = probability, .log_sum_exp = log_sum});
        bench.backend().top_k(bench.stream(), {.scores = probability, .index = index, .value = weight});
        bench.stream().synchronize();
    }
};

Seconds router_sums(SpeedBench& bench, const MoeShape& shape) {
    const Routed routed(bench, shape);
    const Shape by_expert{1, shape.experts};
    Tensor counts = bench.empty(by_expert, DType::int64),
           balance_counts = bench.empty(by_expert, DType::int64);
    Tensor probability = bench.empty(by_expert, DType::f64), weight = bench.empty(by_expert, DType::f64);
    Tensor load = bench.empty(by_expert, DType::f64), z = bench.empty({1}, DType::f64);
    return bench.time([&] {
        bench.backend().router_sums(bench.stream(), {.probability = routed.probability,
                                                     .log_sum_exp = routed.log_sum,
                                                     .load_probability = {},
                                                     .index = routed.index,
                                                     .weight = routed.weight,
                                                     .rows_per_object = shape.tokens,
                                                     .counts = counts,
                                                     .balance_counts = balance_counts,
                                                     .probability_sum = probability,
                                                     .weight_sum = weight,
                                                     .load_sum = load,
                                                     .z_sum = z});
    });
}

Seconds router_confidence(SpeedBench& bench, const MoeShape& shape) {
    constexpr i64 kRows = 64;  // as layers/router_confidence.h has it
    const Routed routed(bench, shape);
    const i64 parts = (shape.tokens + kRows - 1) / kRows;
    Tensor entropy = bench.empty({parts}, DType::f64), first = bench.empty({parts}, DType::f64);
    return bench.time([&] {
        bench.backend().router_confidence(bench.stream(), {.probability = routed.probability,
                                                           .weight = routed.weight,
                                                           .rows_per_part = kRows,
                                                           .entropy_sum = entropy,
                                                           .first_weight_sum = first});
    });
}

/// As the output head calls it: with margins.
Seconds cross_entropy(SpeedBench& bench, const MoeShape& shape) {
    Tensor logits = bench.random({shape.tokens, shape.vocabulary}, DType::f32);
    Tensor target = bench.indices({shape.tokens}, 7919, shape.vocabulary);
    Tensor loss = bench.empty({shape.tokens}, DType::f64), sums = bench.empty({shape.tokens}, DType::f64);
    Tensor margin = bench.empty({shape.tokens}, DType::f64);
    return bench.time([&] {
        bench.backend().cross_entropy(
            bench.stream(),
            {.logits = logits, .target = target, .loss = loss, .log_sum_exp = sums, .margin = margin});
    });
}

Seconds cross_entropy_backward(SpeedBench& bench, const MoeShape& shape) {
    Tensor logits = bench.random({shape.tokens, shape.vocabulary}, DType::f32);
    Tensor target = bench.indices({shape.tokens}, 7919, shape.vocabulary);
    Tensor sums = bench.zeros({shape.tokens}, DType::f64);
    bench.backend().fill(bench.stream(), 12, sums);
    return bench.time([&] {
        bench.backend().cross_entropy_backward(
            bench.stream(),
            {.logits = logits, .target = target, .log_sum_exp = sums, .d_logits = logits, .scale = 1e-4});
    });
}

i64 updated_elements(const MoeShape& shape) {
    return shape.width * shape.heads * shape.head_dim;
}

Seconds gradient_into_sum(SpeedBench& bench, const MoeShape& shape) {
    Tensor part = bench.random({updated_elements(shape)}, DType::f32);
    Tensor sum = bench.zeros({updated_elements(shape)}, DType::f64);
    return bench.time([&] { bench.backend().fold(bench.stream(), part, sum, {}); });
}

Seconds sum_of_squares(SpeedBench& bench, const MoeShape& shape) {
    constexpr i64 kBlock = 4096;  // as comm/gradient_sync.h has it
    const i64 elements = updated_elements(shape);
    Tensor values = bench.random({elements}, DType::f32);
    Tensor sums = bench.empty({(elements + kBlock - 1) / kBlock}, DType::f64);
    return bench.time([&] { bench.backend().block_sum_squares(bench.stream(), values, kBlock, sums); });
}

Seconds adamw(SpeedBench& bench, const MoeShape& shape) {
    const Shape elements{updated_elements(shape)};
    Tensor parameter = bench.random(elements, DType::f32), first = bench.random(elements, DType::f32);
    Tensor second = bench.empty(elements, DType::f32), gradient = bench.random(elements, DType::f32);
    Tensor rounded = bench.empty(elements, DType::bf16);
    bench.backend().fill(bench.stream(), 1, second);
    return bench.time([&] {
        bench.backend().adamw(bench.stream(), {.parameter = parameter,
                                               .first_moment = first,
                                               .second_moment = second,
                                               .gradient = gradient,
                                               .rounded = rounded,
                                               .lr = 1e-3});
    });
}

constexpr std::array kModel{
    MeasuredKernel{"embedding", embedding},
    MeasuredKernel{"RoPE", rope},
    MeasuredKernel{"attention", attention},
    MeasuredKernel{"attention, backward", attention_backward},
    MeasuredKernel{"residual sum", residual_sum},
    MeasuredKernel{"router's sums", router_sums},
    MeasuredKernel{"router's confidence", router_confidence},
    MeasuredKernel{"cross-entropy", cross_entropy},
    MeasuredKernel{"cross-entropy, backward", cross_entropy_backward},
    MeasuredKernel{"embedding, backward", embedding_gradient},
    MeasuredKernel{"gradient into its sum", gradient_into_sum},
    MeasuredKernel{"sum of squares", sum_of_squares},
    MeasuredKernel{"AdamW", adamw},
};

}  // namespace

std::span<const MeasuredKernel> model_kernels() {
    return kModel;
}

}  // namespace moesaic::speed
