#include "layers/attention_layer.h"

#include <cmath>
#include <vector>

namespace moesaic {

namespace {

template <Element Real>
Tensor upload(StepContext& context, const std::vector<double>& values, i64 rows, i64 columns) {
    const std::vector<Real> converted(values.begin(), values.end());
    Tensor table = context.backend.allocate({rows, columns}, dtype_of<Real>());
    context.backend.copy(context.compute, view_of(converted.data(), {rows, columns}), table);
    context.compute.synchronize();
    return table;
}

}  // namespace

void RotaryTable::prepare(StepContext& context, i64 seq_len) {
    if (cosine_ && cosine_.rows() >= seq_len) return;
    std::vector<double> cosine, sine;
    for (i64 position = 0; position < seq_len; ++position) {
        for (i64 i = 0; i < half_; ++i) {
            const double exponent = -static_cast<double>(i) / static_cast<double>(half_);
            const double angle = static_cast<double>(position) * std::pow(theta_, exponent);
            cosine.push_back(std::cos(angle));
            sine.push_back(std::sin(angle));
        }
    }
    const auto make = dtype_ == DType::f64 ? upload<double> : upload<float>;
    cosine_ = make(context, cosine, seq_len, half_);
    sine_ = make(context, sine, seq_len, half_);
}

AttentionLayer::AttentionLayer(const ModelSpec& spec, int layer, const RotaryTable& rotary,
                               ParameterStore& store)
    : width_(spec.width),
      heads_(spec.heads),
      kv_heads_(spec.kv_heads),
      head_dim_(spec.head_dim),
      clip_(spec.clip_qkv),
      causal_(spec.causal),
      rotary_(&rotary) {
    const auto projection = [&](std::string_view kind, i64 out, i64 in) {
        Parameter parameter;
        parameter.name = block_parameter_name(layer, fmt::format("self_attn.{}_proj.weight", kind));
        parameter.shape = {out, in};
        parameter.layer = layer;
        parameter.init_std = spec.init_std;
        return parameter;
    };
    const i64 query_width = heads_ * head_dim_, key_width = kv_heads_ * head_dim_;
    q_ = store.declare(projection("q", query_width, width_));
    k_ = store.declare(projection("k", key_width, width_));
    v_ = store.declare(projection("v", key_width, width_));
    output_ = store.declare(projection("o", width_, query_width));
    for (Weight* weight : {&q_, &k_, &v_, &output_}) store.used_in_products(*weight);
    if (spec.qk_norm == QkNorm::none) return;
    const bool full = spec.qk_norm == QkNorm::full;
    q_norm_.emplace(block_parameter_name(layer, "self_attn.q_norm.weight"), layer,
                    full ? query_width : head_dim_, spec.norm_eps, store);
    k_norm_.emplace(block_parameter_name(layer, "self_attn.k_norm.weight"), layer,
                    full ? key_width : head_dim_, spec.norm_eps, store);
}

Tensor AttentionLayer::project(StepContext& context, ConstTensorView x, const Weight& weight) {
    Tensor y = context.backend.allocate({x.rows(), weight.value().rows()}, x.dtype);
    context.backend.gemm(
        context.compute,
        {.a = x, .b = weight.value(), .c = y, .trans_b = true, .packed_b = weight.packed_transposed()});
    return y;
}

void AttentionLayer::project_backward(StepContext& context, ConstTensorView x, const Weight& weight,
                                      ConstTensorView dy, TensorView dx, bool accumulate) {
    context.backend.gemm(
        context.compute,
        {.a = dy, .b = weight.value(), .c = dx, .accumulate = accumulate, .packed_b = weight.packed_plain()});
    context.backend.gemm(context.compute,
                         {.a = dy, .b = x, .c = weight.grad(), .trans_a = true, .accumulate = true});
}

void AttentionLayer::rotate(StepContext& context, i64 seq_len, TensorView x, bool inverse) const {
    context.backend.rope(context.compute, {.x = x,
                                           .row_stride = x.cols(),
                                           .heads = x.cols() / head_dim_,
                                           .head_dim = head_dim_,
                                           .seq_len = seq_len,
                                           .cosine = rotary_->cosine(seq_len),
                                           .sine = rotary_->sine(seq_len),
                                           .inverse = inverse});
}

/// q or k as attention reads it: projected, normalised, clamped, rotated.
void AttentionLayer::rotated_forward(StepContext& context, const LayerInput& in, const Weight& weight,
                                     const std::optional<RmsNormLayer>& norm, Rotated& saved) const {
    saved.ready = project(context, in.x, weight);
    if (norm) {
        saved.raw = std::move(saved.ready);
        saved.ready = norm->forward(context, {.x = saved.raw, .seq_len = in.seq_len}, saved.norm);
    }
    if (clip_) {
        context.backend.clamp(context.compute, *clip_, saved.ready);
        saved.clamped = context.backend.allocate(saved.ready.shape(), in.x.dtype);
        context.backend.copy(context.compute, saved.ready, saved.clamped);
    }
    rotate(context, in.seq_len, saved.ready, false);
}

Tensor AttentionLayer::rotated_backward(StepContext& context, const LayerInput& in,
                                        const std::optional<RmsNormLayer>& norm, Tensor d_ready,
                                        Rotated& saved) const {
    rotate(context, in.seq_len, d_ready, true);
    if (clip_) context.backend.clamp_grad(context.compute, *clip_, saved.clamped, d_ready);
    if (!norm) return d_ready;
    return norm->backward(context, {.x = saved.raw, .seq_len = in.seq_len}, d_ready, saved.norm);
}

Tensor AttentionLayer::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    Backend& backend = context.backend;
    rotated_forward(context, in, q_, q_norm_, saved.q);
    rotated_forward(context, in, k_, k_norm_, saved.k);
    saved.v = project(context, in.x, v_);
    if (clip_) backend.clamp(context.compute, *clip_, saved.v);

    saved.mixed = backend.allocate(saved.q.ready.shape(), in.x.dtype);
    saved.log_sum_exp = backend.allocate({heads_, in.x.rows()}, accumulation_type(in.x.dtype));
    backend.attention(context.compute, {.q = saved.q.ready,
                                        .k = saved.k.ready,
                                        .v = saved.v,
                                        .out = saved.mixed,
                                        .log_sum_exp = saved.log_sum_exp,
                                        .heads = heads_,
                                        .kv_heads = kv_heads_,
                                        .head_dim = head_dim_,
                                        .seq_len = in.seq_len,
                                        .first_key = in.first_key,
                                        .causal = causal_});
    Tensor y = backend.allocate({in.x.rows(), width_}, in.x.dtype);
    backend.gemm(context.compute, {.a = saved.mixed,
                                   .b = output_.value(),
                                   .c = y,
                                   .trans_b = true,
                                   .packed_b = output_.packed_transposed()});
    return y;
}

Tensor AttentionLayer::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                Saved& saved) const {
    Backend& backend = context.backend;
    Tensor d_mixed = backend.allocate(saved.mixed.shape(), in.x.dtype);
    backend.gemm(context.compute,
                 {.a = dy, .b = output_.value(), .c = d_mixed, .packed_b = output_.packed_plain()});
    backend.gemm(context.compute,
                 {.a = dy, .b = saved.mixed, .c = output_.grad(), .trans_a = true, .accumulate = true});

    Tensor dq = backend.allocate(saved.q.ready.shape(), in.x.dtype);
    Tensor dk = backend.allocate(saved.k.ready.shape(), in.x.dtype);
    Tensor dv = backend.allocate(saved.v.shape(), in.x.dtype);
    backend.attention_backward(context.compute, {.q = saved.q.ready,
                                                 .k = saved.k.ready,
                                                 .v = saved.v,
                                                 .out = saved.mixed,
                                                 .log_sum_exp = saved.log_sum_exp,
                                                 .d_out = d_mixed,
                                                 .dq = dq,
                                                 .dk = dk,
                                                 .dv = dv,
                                                 .heads = heads_,
                                                 .kv_heads = kv_heads_,
                                                 .head_dim = head_dim_,
                                                 .seq_len = in.seq_len,
                                                 .first_key = in.first_key,
                                                 .causal = causal_});
    dq = rotated_backward(context, in, q_norm_, std::move(dq), saved.q);
    dk = rotated_backward(context, in, k_norm_, std::move(dk), saved.k);
    if (clip_) backend.clamp_grad(context.compute, *clip_, saved.v, dv);

    Tensor dx = backend.allocate(in.x.shape, in.x.dtype);
    project_backward(context, in.x, q_, dq, dx, false);
    project_backward(context, in.x, k_, dk, dx, true);
    project_backward(context, in.x, v_, dv, dx, true);
    return dx;
}

}  // namespace moesaic
