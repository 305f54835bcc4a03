// Copies of right operands in the order in which products read them.
#include <type_traits>

#include "runtime/cpu/gemm.h"
#include "runtime/cpu/gemm_tasks.h"

namespace moesaic {

using gemm::divide_up;
using gemm::round_up;

template <class T>
i64 packed_elements(i64 p, i64 n) {
    return p * round_up(n, gemm_kernels<T>().lanes);
}
template <>
i64 packed_elements<BFloat16>(i64 p, i64 n) {
    return packed_elements<float>(round_up(p, 2), n);
}

template <class T>
void pack_matrix(ThreadPool& pool, const StridedOperand<T>& b, i64 p, i64 n, T* packed) {
    constexpr bool kNarrow = std::is_same_v<T, BFloat16>;
    const auto& kernels = gemm_kernels<std::conditional_t<kNarrow, float, T>>();
    pool.parallel_for(divide_up(n, kernels.panel_columns), [&](i64 panel) {
        const i64 column = panel * kernels.panel_columns;
        const i64 columns = std::min(kernels.panel_columns, n - column);
        if constexpr (kNarrow) {
            kernels.narrow.pack_pairs(b.from(0, column), p, columns, pair_order(bf16_products()),
                                      packed + column * round_up(p, 2));
        } else {
            kernels.pack_panel(b.from(0, column), p, columns, packed + column * p);
        }
    });
}

template i64 packed_elements<float>(i64, i64);
template void pack_matrix(ThreadPool&, const StridedOperand<float>&, i64, i64, float*);
template void pack_matrix(ThreadPool&, const StridedOperand<BFloat16>&, i64, i64, BFloat16*);
template i64 packed_elements<double>(i64, i64);
template void pack_matrix(ThreadPool&, const StridedOperand<double>&, i64, i64, double*);

}  // namespace moesaic
