#include "runtime/cpu/cpu_backend.h"

namespace moesaic {

void CpuBackend::gemm(Stream&, const Gemm&) {
    MOESAIC_ASSERT(false, "not connected yet");
}
void CpuBackend::grouped_gemm(Stream&, const GroupedGemm&) {
    MOESAIC_ASSERT(false, "not connected yet");
}
void CpuBackend::grouped_gemm_weight_grad(Stream&, const GroupedGemmWeightGrad&) {
    MOESAIC_ASSERT(false, "not connected yet");
}
void CpuBackend::attention(Stream&, const Attention&) {
    MOESAIC_ASSERT(false, "not connected yet");
}
void CpuBackend::attention_backward(Stream&, const AttentionGrad&) {
    MOESAIC_ASSERT(false, "not connected yet");
}

}  // namespace moesaic
