// Causal self-attention with grouped queries, rotary positions and optional normalisation of q and k.
#pragma once

#include <optional>

#include "layers/layer.h"
#include "layers/model_spec.h"
#include "layers/rms_norm_layer.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// Cosines and sines of position * theta^(-2i/head_dim) (Su et al. 2021, eq. 15), shared by all blocks.
class RotaryTable {
  public:
    RotaryTable(i64 head_dim, double theta, DType dtype)
        : half_(head_dim / 2), theta_(theta), dtype_(dtype) {}

    /// Makes positions [0, seq_len) available; computes and uploads only when the table has to grow.
    void prepare(StepContext& context, i64 seq_len);
    [[nodiscard]] ConstTensorView cosine(i64 seq_len) const { return cosine_.slice_rows(0, seq_len); }
    [[nodiscard]] ConstTensorView sine(i64 seq_len) const { return sine_.slice_rows(0, seq_len); }

  private:
    i64 half_;
    double theta_;
    DType dtype_;
    Tensor cosine_, sine_;  // [positions, head_dim/2]
};

/// Declares self_attn.{q,k,v,o}_proj and, with qk-norm, self_attn.{q,k}_norm. Order: project, norm of q and
/// k, clamp of q, k and v, rotate q and k, attend, project.
class AttentionLayer {
  public:
    /// What q or k went through on its way to attention; C is its heads * head_dim.
    struct Rotated {
        Tensor raw;  // [T,C] before qk-norm; empty without
        RmsNormLayer::Saved norm;
        Tensor clamped;  // [T,C] after the clamp, before rotation; empty without a clamp
        Tensor ready;    // [T,C] as attention reads it
    };
    struct Saved {
        Rotated q, k;
        Tensor v;            // [T, kv_heads*head_dim]
        Tensor mixed;        // [T, heads*head_dim] before the output projection
        Tensor log_sum_exp;  // real [heads,T]
    };

    /// `rotary` outlives the layer and is prepared by whoever calls it.
    AttentionLayer(const ModelSpec& spec, int layer, const RotaryTable& rotary, ParameterStore& store);

    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const;

  private:
    [[nodiscard]] static Tensor project(StepContext& context, ConstTensorView x, const Weight& weight);
    static void project_backward(StepContext& context, ConstTensorView x, const Weight& weight,
                                 ConstTensorView dy, TensorView dx, bool accumulate);
    void rotated_forward(StepContext& context, const LayerInput& in, const Weight& weight,
                         const std::optional<RmsNormLayer>& norm, Rotated& saved) const;
    [[nodiscard]] Tensor rotated_backward(StepContext& context, const LayerInput& in,
                                          const std::optional<RmsNormLayer>& norm, Tensor d_ready,
                                          Rotated& saved) const;
    void rotate(StepContext& context, i64 seq_len, TensorView x, bool inverse) const;

    i64 width_, heads_, kv_heads_, head_dim_;
    std::optional<double> clip_;
    bool causal_;
    const RotaryTable* rotary_;
    Weight q_, k_, v_;  // [heads*head_dim, H], and k and v [kv_heads*head_dim, H]
    Weight output_;     // [H, heads*head_dim]
    std::optional<RmsNormLayer> q_norm_, k_norm_;
};

static_assert(Layer<AttentionLayer>);

}  // namespace moesaic
