// The back end that computes on the processor; the reference for all others.
#pragma once

#include <algorithm>

#include "runtime/backend.h"
#include "runtime/cpu/range.h"
#include "runtime/cpu/thread_pool.h"

namespace moesaic {

struct OneDnn;

/// Checks the operands of every operation when it is enqueued, and shares its rows among the threads when it
/// runs. Made by make_cpu_backend; one per rank. Where there is a `library`, it computes the products of f32.
class CpuBackend final : public Backend {
  public:
    CpuBackend(int threads, StreamMode mode, u64 shuffle_seed, Device device = Device::cpu,
               const OneDnn* library = nullptr);

    std::string_view name() const override { return "cpu"; }
    MemoryPool& pool() override { return pool_; }
    bool computes() const override { return scheduler_.mode() != StreamMode::accounting; }
    /// Back ends of other devices, whose operands this one checks, do not.
    bool adds_to_gradients() const override { return pool_.device() == Device::cpu; }
    std::unique_ptr<Stream> make_stream(std::string_view name) override {
        return scheduler_.make_stream(name);
    }

    void copy(Stream& stream, ConstTensorView from, TensorView to) override;
    void zero(Stream& stream, TensorView y) override;
    void fill(Stream& stream, double value, TensorView y) override;
    void add(Stream& stream, ConstTensorView x, TensorView y) override;
    void fold(Stream& stream, TensorView part, TensorView sum, const FoldRounding& rounding) override;
    void convert(Stream& stream, ConstTensorView from, TensorView to) override;
    void scale(Stream& stream, double factor, TensorView y) override;
    void clamp(Stream& stream, double limit, TensorView y) override;
    void clamp_grad(Stream& stream, double limit, ConstTensorView y, TensorView dy) override;

    void gemm(Stream& stream, const Gemm& operation) override;
    void grouped_gemm(Stream& stream, const GroupedGemm& operation) override;
    void grouped_gemm_weight_grad(Stream& stream, const GroupedGemmWeightGrad& operation) override;
    void grouped_gemm_activation(Stream& stream, const GroupedGemm& product,
                                 const Activation& after) override;
    void grouped_gemm_activation_backward(Stream& stream, const GroupedGemm& product,
                                          const ActivationGrad& after) override;
    PackedElements packed_elements(Shape weight, DType dtype, i64 halves) const override;
    void pack(Stream& stream, const PackWeight& operation) override;
    i64 addends_together(DType dtype) const override;

    void rms_norm(Stream& stream, const RmsNorm& operation) override;
    void rms_norm_backward(Stream& stream, const RmsNormGrad& operation) override;
    void rope(Stream& stream, const Rope& operation) override;
    void attention(Stream& stream, const Attention& operation) override;
    void attention_backward(Stream& stream, const AttentionGrad& operation) override;
    void embedding(Stream& stream, const Embedding& operation) override;
    void embedding_backward(Stream& stream, const EmbeddingGrad& operation) override;
    void activation(Stream& stream, const Activation& operation) override;
    void activation_backward(Stream& stream, const ActivationGrad& operation) override;
    void cross_entropy(Stream& stream, const CrossEntropy& operation) override;
    void cross_entropy_backward(Stream& stream, const CrossEntropyGrad& operation) override;
    void squared_error(Stream& stream, const SquaredError& operation) override;
    void squared_error_backward(Stream& stream, const SquaredErrorGrad& operation) override;

    void row_softmax(Stream& stream, const RowSoftmax& operation) override;
    void top_k(Stream& stream, const TopK& operation) override;
    void gather_choices(Stream& stream, const GatherChoices& operation) override;
    void normalize_rows(Stream& stream, const NormalizeRows& operation) override;
    void sigmoid_scores(Stream& stream, const SigmoidScores& operation) override;
    void choose_tokens(Stream& stream, const ChooseTokens& operation) override;
    void sinkhorn(Stream& stream, const Sinkhorn& operation) override;
    void random_fill(Stream& stream, const RandomFill& operation) override;
    void multiply_elements(Stream& stream, const MultiplyElements& operation) override;
    void noisy_logits(Stream& stream, const NoisyLogits& operation) override;
    void noisy_logits_backward(Stream& stream, const NoisyLogitsGrad& operation) override;
    void noisy_load(Stream& stream, const NoisyLoad& operation) override;
    void noisy_load_backward(Stream& stream, const NoisyLoadGrad& operation) override;
    void prototype_logits(Stream& stream, const PrototypeLogits& operation) override;
    void prototype_logits_backward(Stream& stream, const PrototypeLogitsGrad& operation) override;
    void balance_bias(Stream& stream, const BalanceBias& operation) override;
    void router_sums(Stream& stream, const RouterSums& operation) override;
    void route(Stream& stream, const Route& operation) override;
    void router_backward(Stream& stream, const RouterGrad& operation) override;
    void router_confidence(Stream& stream, const RouterConfidence& operation) override;
    void sigmoid_gate(Stream& stream, const SigmoidGate& operation) override;
    void sigmoid_gate_backward(Stream& stream, const SigmoidGateGrad& operation) override;
    void add_by_choice(Stream& stream, const AddByChoice& operation) override;
    void limit_choices(Stream& stream, const LimitChoices& operation) override;
    void rescale_kept(Stream& stream, const RescaleKept& operation) override;
    void rescale_kept_backward(Stream& stream, const RescaleKeptGrad& operation) override;
    void group_by_key(Stream& stream, const GroupByKey& operation) override;
    void gather_rows(Stream& stream, const GatherRows& operation) override;
    void combine_rows(Stream& stream, const CombineRows& operation) override;
    void combine_rows_backward(Stream& stream, const CombineRowsGrad& operation) override;

    void adamw(Stream& stream, const AdamW& operation) override;
    void block_sum_squares(Stream& stream, ConstTensorView values, i64 block, TensorView sums) override;

  private:
    [[nodiscard]] bool by_library(DType dtype) const { return library_ && dtype == DType::f32; }
    /// Shares `count` items of about `elements_each` elements: calls `kernel(Range)` for parts that are worth
    /// a thread each. Parts begin at multiples of `unit`.
    template <class Kernel>
    void share(i64 count, i64 elements_each, Kernel&& kernel, i64 unit = 1) {
        constexpr i64 kElementsPerTask = 16384;
        const i64 units = (count + unit - 1) / unit;
        const i64 worthwhile = units * unit * std::max<i64>(elements_each, 1) / kElementsPerTask;
        const i64 tasks =
            std::clamp<i64>(worthwhile, 1, std::max<i64>(1, std::min<i64>(units, threads_.threads())));
        threads_.parallel_for(tasks, [&](i64 task) {
            const cpu::Range part{units * task / tasks * unit,
                                  std::min(count, units * (task + 1) / tasks * unit)};
            if (part.first < part.last) kernel(part);
        });
    }

    MemoryPool pool_;
    ThreadPool threads_;
    HostStreamScheduler scheduler_;
    const OneDnn* library_;
};

}  // namespace moesaic
