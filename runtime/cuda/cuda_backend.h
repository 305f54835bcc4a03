// The back end that computes on one GPU of NVIDIA, by kernels of its own and cuBLAS.
#pragma once

#include <span>
#include <vector>

#include "runtime/backend.h"
#include "runtime/cpu/checks.h"
#include "runtime/cuda/cuda_stream.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

/// Made by moesaic_backend_create (cuda_module.h); one per rank, used by its main thread alone. Operands are
/// checked by the CPU back end's checks and have to be in this back end's memory.
class CudaBackend final : public Backend {
  public:
    /// Throws Error where the device cannot be used.
    explicit CudaBackend(int device);
    CudaBackend(const CudaBackend&) = delete;
    CudaBackend& operator=(const CudaBackend&) = delete;

    std::string_view name() const override { return "cuda"; }
    MemoryPool& pool() override { return pool_; }
    std::unique_ptr<Stream> make_stream(std::string_view name) override;

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
    /// Checks the operands of an operation; the stream to enqueue its kernels on.
    template <class... Parameters, class... Arguments>
    cuda::Launcher checked(Stream& stream, void (Backend::*operation)(Stream&, Parameters...),
                           const Arguments&... arguments) {
        const cpu::ExpectedDevice expected(Device::cuda);
        (checker_.get()->*operation)(*checker_stream_, arguments...);
        return {mine(stream).handle()};
    }
    static CudaStream& mine(Stream& stream);

    /// The operand in f32, by way of `room` where it is bf16.
    ConstTensorView widened(Stream& stream, ConstTensorView operand, Tensor& room);
    /// The rows that an index names, by way of `room`; the operand itself without an index.
    ConstTensorView gathered(Stream& stream, ConstTensorView operand, ConstTensorView index, Tensor& room);
    /// A product of operands that cuBLAS takes together.
    void multiply(Stream& stream, const Gemm& operation);
    /// Products of the same types that read nothing of each other: large ones alone, small ones in one call.
    void multiply_all(Stream& stream, std::span<const Gemm> products);
    void multiply_together(Stream& stream, std::span<const Gemm> products);
    void multiply_groups(Stream& stream, const GroupedGemm& operation);
    /// The same by kernels for compute capability 9.0 (hopper/), where these are there, take the operands and
    /// are faster; false where not, and nothing was done.
    bool multiply_groups_on_hopper(Stream& stream, const GroupedGemm& operation);
    bool add_weight_gradients_on_hopper(Stream& stream, ConstTensorView a, ConstTensorView b,
                                        const GroupedGemmWeightGrad& operation);
    /// Host numbers in device memory, valid on `stream` until `room` goes.
    void upload(Stream& stream, const void* data, i64 bytes, Tensor& room);
    /// Where the rows of each group begin, [groups + 1].
    const i64* first_rows(Stream& stream, std::span<const i64> rows_per_group, Tensor& room);

    /// A stable sort, as GroupByKey; first_place [groups], where each group begins in the order, may be null.
    void sort_by_key(const cuda::Launcher& on, ConstTensorView key, i64 groups, i32* order, i64* counts,
                     i32* first_place);

    MemoryPool pool_;
    std::unique_ptr<Backend> checker_;
    std::unique_ptr<Stream> checker_stream_;
    std::vector<i64> numbers_;        // of uploads, kept for their memory
    int hopper_multiprocessors_ = 0;  // 0: the device or the program has none of hopper/'s kernels
};

}  // namespace moesaic
