// Products of consecutive groups of rows, each group with its own matrix: one expert, one group.
#pragma once

#include <span>

#include "runtime/cpu/gemm.h"

namespace moesaic {

/// For each group g with its consecutive rows: c[rows] [.,n] (+)= a[rows] [.,p] · op(b[g]); b [groups,p,n],
/// or [groups,n,p] with trans_b. Dense row-major; bit for bit what one multiply() per group gives.
template <class T>
struct GroupedProduct {
    std::span<const i64> rows_per_group;
    i64 n = 0, p = 0;
    Elements<T> a;  // [R,p]
    Elements<T> b;
    T* c = nullptr;  // [R,n]
    bool trans_b = false, accumulate = false;
    Elements<T> packed_b = {};           // every group's copy by pack_weight(), one after the other, or none
    const i32* a_rows = nullptr;         // [R] which row of a takes the place of each, or null
    const BlockWork<T>* work = nullptr;  // as in MatrixProduct; numbered by group
    i64 halves = 1;
    BFloat16* rounded_c = nullptr;  // as in MatrixProduct, [R,n]
};

template <class T>
void multiply_groups(ThreadPool& pool, const GroupedProduct<T>& product, const OneDnn* library = nullptr);

/// For each group g and each of its parts in ascending order: c[g] [m,n] += aᵀ·b of the part's rows, which is
/// summed from zero in T, rows in the order of a MatrixProduct's addends; a [R,m], b [R,n].
template <class T>
struct GroupedWeightGrad {
    std::span<const i64> rows_per_part;  // [groups, parts]
    i64 groups = 0;
    i64 m = 0, n = 0;
    Elements<T> a, b;
    SumElements<T> c = {};                           // [groups,m,n]
    const i32 *a_rows = nullptr, *b_rows = nullptr;  // as in GroupedProduct, each [R]
    bool from_zero = false;                          // whatever stands in c
};

template <class T>
void accumulate_weight_grads(ThreadPool& pool, const GroupedWeightGrad<T>& product,
                             const OneDnn* library = nullptr);

}  // namespace moesaic
