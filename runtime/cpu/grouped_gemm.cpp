// Grouped products as a list of plain products that share one pool of tasks.
#include "runtime/cpu/grouped_gemm.h"

#include <numeric>

#include "runtime/cpu/scratch.h"

namespace moesaic {

namespace {

/// Rows from `first` on of a matrix with `columns` columns, or of one that an index makes of it.
template <class T>
StridedOperand<T> rows_from(const T* data, const i32* index, i64 first, i64 columns) {
    StridedOperand<T> rows = operand(data, columns);
    rows.row_index = index;
    return rows.from(first, 0);
}
template <class T>
ProductOperand<T> rows_from(const Elements<T>& data, const i32* index, i64 first, i64 columns) {
    if (data.narrow) return rows_from(data.narrow, index, first, columns);
    return rows_from(data.real, index, first, columns);
}

template <class T>
StridedOperand<T> transposed(const StridedOperand<T>& rows) {
    return {rows.data, rows.column_stride, rows.row_stride, rows.column_index, rows.row_index};
}
template <class T>
ProductOperand<T> transposed(const ProductOperand<T>& rows) {
    if (rows.is_narrow()) return transposed(rows.narrow);
    return transposed(rows.real);
}

}  // namespace

template <class T>
void multiply_groups(ThreadPool& pool, const GroupedProduct<T>& product, const OneDnn* library) {
    const std::size_t groups = product.rows_per_group.size();
    auto* const products = scratch<MatrixProduct<T>>(ScratchSlot::products, static_cast<i64>(groups));
    const i64 half = product.n / product.halves;
    const i64 packed = product.halves * (product.packed_b.narrow ? packed_elements<BFloat16>(product.p, half)
                                                                 : packed_elements<T>(product.p, half));
    i64 first_row = 0;
    for (std::size_t group = 0; group < groups; ++group) {
        const auto index = static_cast<i64>(group);
        MatrixProduct<T> one;
        one.m = product.rows_per_group[group];
        one.n = product.n;
        one.p = product.p;
        one.a = rows_from(product.a, product.a_rows, first_row, product.p);
        one.b = operand(product.b.from(index * product.n * product.p),
                        product.trans_b ? product.p : product.n, product.trans_b);
        if (product.c) one.c = product.c + first_row * product.n;
        if (product.rounded_c) one.rounded_c = product.rounded_c + first_row * product.n;
        one.c_row_stride = product.n;
        one.accumulate = product.accumulate;
        one.packed_b = product.packed_b.from(index * packed);
        one.work = product.work;
        one.number = index;
        one.rows_before = first_row;
        one.halves = product.halves;
        products[group] = one;
        first_row += one.m;
    }
    multiply_all<T>(pool, {products, groups}, library);
}

template <class T>
void accumulate_weight_grads(ThreadPool& pool, const GroupedWeightGrad<T>& product, const OneDnn* library) {
    auto* const products = scratch<MatrixProduct<T>>(ScratchSlot::products, product.groups);
    const std::size_t parts =
        product.groups > 0 ? product.rows_per_part.size() / static_cast<std::size_t>(product.groups) : 0;
    i64 first_row = 0;
    for (i64 group = 0; group < product.groups; ++group) {
        MatrixProduct<T> one;
        one.parts = product.rows_per_part.subspan(static_cast<std::size_t>(group) * parts, parts);
        one.m = product.m;
        one.n = product.n;
        one.p = std::accumulate(one.parts.begin(), one.parts.end(), i64{0});
        one.a = transposed(rows_from(product.a, product.a_rows, first_row, product.m));
        one.b = rows_from(product.b, product.b_rows, first_row, product.n);
        one.sum = product.c.from(group * product.m * product.n);
        one.sum_from_zero = product.from_zero;
        products[group] = one;
        first_row += one.p;
    }
    multiply_all<T>(pool, {products, static_cast<std::size_t>(product.groups)}, library);
}

template void multiply_groups(ThreadPool&, const GroupedProduct<float>&, const OneDnn*);
template void multiply_groups(ThreadPool&, const GroupedProduct<double>&, const OneDnn*);
template void accumulate_weight_grads(ThreadPool&, const GroupedWeightGrad<float>&, const OneDnn*);
template void accumulate_weight_grads(ThreadPool&, const GroupedWeightGrad<double>&, const OneDnn*);

}  // namespace moesaic
