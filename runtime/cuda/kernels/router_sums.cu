#include "runtime/cuda/kernels/chunk_sums.h"
#include "runtime/cuda/kernels/columns.h"

namespace moesaic::kernels {

__device__ void RouterSumTotal::operator()(i64 number, const ThreadBlock& block) const {
    const i64 which = number / tiles / objects, object = number / tiles % objects;
    const i64 columns = which == kExpertSums ? 1 : experts;
    const double* const from = which == kExpertSums ? z_part : part + which * objects * chunks * experts;
    const i64 expert = number % tiles * kColumnsOfBlock + block.thread % kColumnsOfBlock;
    const double total = sum_down_columns(object * chunks, (object + 1) * chunks, block, [&](i64 chunk) {
        return expert < columns ? from[chunk * columns + expert] : 0.0;
    });
    if (block.thread >= kColumnsOfBlock || expert >= columns) return;
    const i64 to = object * columns + expert;
    switch (which) {
        case 0:
            counts[to] = static_cast<i64>(total);
            return;
        case 1:
            balance_counts[to] = static_cast<i64>(total);
            return;
        case 2:
            probability_sum[to] = total;
            return;
        case 3:
            weight_sum[to] = total;
            return;
        case 4:
            load_sum[to] = total;
            return;
        default:
            z_sum[to] = total;
    }
}

template <class T>
__device__ void ConfidencePart<T>::operator()(i64 part, const ThreadBlock& block) const {
    GPU_SHARED(double, of_entropy, kBlockWarps);
    GPU_SHARED(double, of_weight, kBlockWarps);
    const i64 first = part * rows_per_part, last = smaller(first + rows_per_part, tokens);
    double entropy = 0, first_weight = 0;
    constexpr int kAtOnce = 8;
    for (i64 i = first * experts + block.thread; i < last * experts; i += kAtOnce * kBlockThreads) {
        T p[kAtOnce];
        for (int k = 0; k < kAtOnce; ++k)
            p[k] = i + k * kBlockThreads < last * experts ? probability[i + k * kBlockThreads] : T{0};
        for (int k = 0; k < kAtOnce; ++k)
            if (p[k] > 0) entropy -= static_cast<double>(p[k]) * static_cast<double>(std::log(p[k]));
    }
    for (i64 row = first + block.thread; row < last; row += kBlockThreads)
        first_weight += static_cast<double>(weight[row * choices]);
    entropy = block.sum(entropy, of_entropy);
    first_weight = block.sum(first_weight, of_weight);
    if (block.thread != 0) return;
    entropy_sum[part] = entropy;
    first_weight_sum[part] = first_weight;
}

MOESAIC_FOR_REALS(MOESAIC_EACH_BLOCK, RouterSumChunk);
MOESAIC_EACH_BLOCK(RouterSumTotal);
MOESAIC_FOR_REALS(MOESAIC_EACH_BLOCK, ConfidencePart);

}  // namespace moesaic::kernels
