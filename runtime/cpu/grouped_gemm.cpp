// Grouped products as a list of plain products that share one pool of tasks.
#include "runtime/cpu/grouped_gemm.h"

#include "runtime/cpu/gemm.h"
#include "runtime/cpu/scratch.h"

namespace moesaic {
namespace {

/// Fills one product per group with make(group, first_row, rows) and runs them all.
template <class T, class Make>
void multiply_each(ThreadPool& pool, std::span<const i64> rows_per_group, Make make) {
    const std::size_t groups = rows_per_group.size();
    auto* products = scratch<MatrixProduct<T>>(ScratchSlot::products, static_cast<i64>(groups));
    i64 first_row = 0;
    for (std::size_t group = 0; group < groups; ++group) {
        products[group] = make(static_cast<i64>(group), first_row, rows_per_group[group]);
        first_row += rows_per_group[group];
    }
    multiply_all<T>(pool, {products, groups});
}

}  // namespace

template <class T>
void multiply_groups(ThreadPool& pool, const GroupedProduct<T>& product) {
    multiply_each<T>(pool, product.rows_per_group, [&](i64 group, i64 first_row, i64 rows) {
        const T* const b = product.b + group * product.n * product.p;
        return MatrixProduct<T>{rows,
                                product.n,
                                product.p,
                                operand(product.a + first_row * product.p, product.p),
                                operand(b, product.trans_b ? product.p : product.n, product.trans_b),
                                product.c + first_row * product.n,
                                product.n,
                                product.accumulate};
    });
}

template <class T>
void accumulate_weight_grads(ThreadPool& pool, const GroupedWeightGrad<T>& product) {
    multiply_each<T>(pool, product.rows_per_group, [&](i64 group, i64 first_row, i64 rows) {
        return MatrixProduct<T>{product.m,
                                product.n,
                                rows,
                                operand(product.a + first_row * product.m, product.m, true),
                                operand(product.b + first_row * product.n, product.n),
                                product.c + group * product.m * product.n,
                                product.n,
                                true};
    });
}

template void multiply_groups(ThreadPool&, const GroupedProduct<float>&);
template void multiply_groups(ThreadPool&, const GroupedProduct<double>&);
template void accumulate_weight_grads(ThreadPool&, const GroupedWeightGrad<float>&);
template void accumulate_weight_grads(ThreadPool&, const GroupedWeightGrad<double>&);

}  // namespace moesaic
