// Matrix products on the CPU whose sums do not depend on layout: one chain of fused multiply-adds per
// element, or of bf16 the order of AMX tiles.
#pragma once

#include <span>

#include "runtime/cpu/gemm_kernel.h"
#include "runtime/cpu/thread_pool.h"

namespace moesaic {

struct OneDnn;

/// Rows and columns of a product's result, in the cache.
template <class T>
struct ResultBlock {
    i64 product = 0;                    ///< MatrixProduct::number
    i64 first_row = 0, rows = 0;        ///< of all numbered products' rows
    i64 first_column = 0, columns = 0;  ///< of a half of the columns
    T* c = nullptr;                     ///< the first half's first element
    i64 c_row_stride = 0;
    i64 c_half = 0;  ///< elements from a half to the other
};
/// What is done with the blocks of a product's result, each once, on any thread.
template <class T>
class BlockWork {
  public:
    /// Writes what an accumulating product without a c starts from.
    virtual void begin(const ResultBlock<T>& block) const;
    /// The block is complete.
    virtual void run(const ResultBlock<T>& block) const = 0;

  protected:
    ~BlockWork() = default;
};

/// Where a dense matrix stands, or a copy of one: in T, or in bf16; or nowhere.
template <class T>
struct Elements {
    const T* real = nullptr;
    const BFloat16* narrow = nullptr;

    Elements() = default;
    Elements(const T* elements) : real(elements) {}
    Elements(const BFloat16* elements) : narrow(elements) {}
    [[nodiscard]] explicit operator bool() const { return real || narrow; }
    [[nodiscard]] Elements from(i64 element) const {
        if (narrow) return narrow + element;
        return real ? real + element : real;
    }
};
/// An operand in T, or in bf16: that is widened as it is packed, which changes no bit of a product in f32,
/// unless both are multiplied as they are.
template <class T>
struct ProductOperand {
    StridedOperand<T> real;
    StridedOperand<BFloat16> narrow;

    ProductOperand() = default;
    ProductOperand(const StridedOperand<T>& operand) : real(operand) {}
    ProductOperand(const StridedOperand<BFloat16>& operand) : narrow(operand) {}
    [[nodiscard]] bool is_narrow() const { return narrow.data != nullptr; }
};

/// c [m,n] (+)= a [m,p] · b [p,n] with b and a read through strides (a transpose swaps them); c is row-major
/// with rows c_row_stride apart. T is float or double.
///
/// c(i,j) = fma(a(i,p-1), b(p-1,j), ... fma(a(i,0), b(0,j), 0 or c(i,j))): splitting p over two accumulating
/// calls, other numbers of rows or of threads change no bit, nor does it whether b was packed beforehand. Two
/// operands in bf16 may be summed by tiles instead (bf16_products.h), in the order of TileProduct: there p
/// may be split at multiples of kAddendsOfTiles.
template <class T>
struct MatrixProduct {
    i64 m = 0, n = 0, p = 0;
    ProductOperand<T> a, b;
    T* c = nullptr;
    i64 c_row_stride = 0;
    bool accumulate = false;
    /// Where c is null and nothing accumulates, or null: the result rounded, with rows c_row_stride apart.
    BFloat16* rounded_c = nullptr;
    /// b's copy by pack_weight(), or none.
    Elements<T> packed_b = {};
    /// Dense [m,n] or nowhere: instead of writing c, every part's product, summed from zero, is added here in
    /// ascending order. The parts' extents add up to p; they may be 0.
    SumElements<T> sum = {};
    bool sum_from_zero = false;  ///< whatever stands there
    std::span<const i64> parts = {};
    /// Or null: gets every block of the result. Where c is null the result is kept nowhere else.
    const BlockWork<T>* work = nullptr;
    i64 number = 0, rows_before = 0;  ///< for the work: of this product, and of all before it
    /// Halves of the columns that a block of work takes together, the same columns of each: 1 or 2. packed_b
    /// then holds them one after the other, as copies of their own.
    i64 halves = 1;
};

/// Elements of one of the copies that pack_weight() makes, of b [p,n]; T may also be BFloat16.
template <class T>
[[nodiscard]] i64 packed_elements(i64 p, i64 n);
template <>
i64 packed_elements<BFloat16>(i64 p, i64 n);
/// A weight [groups,n,p] and its copies in the order in which products read them, a group's after another's:
/// `transposed` of each of its halves of n as b [p, n / halves], `plain` of the whole as b [n,p]; either may
/// be null. T may also be BFloat16.
template <class T>
struct WeightCopies {
    const T* weight = nullptr;
    i64 groups = 1, halves = 1, n = 0, p = 0;
    T* transposed = nullptr;
    T* plain = nullptr;
    bool past_caches = false;  ///< a hint: the copies are read later
};
template <class T>
void pack_weight(ThreadPool& pool, const WeightCopies<T>& copies);

/// A dense row-major matrix with `columns` stored columns, or its transpose, as an operand.
template <class T>
[[nodiscard]] StridedOperand<T> operand(const T* data, i64 columns, bool transposed = false) {
    return transposed ? StridedOperand<T>{data, 1, columns} : StridedOperand<T>{data, columns, 1};
}
template <class T>
[[nodiscard]] ProductOperand<T> operand(const Elements<T>& data, i64 columns, bool transposed = false) {
    if (data.narrow) return operand(data.narrow, columns, transposed);
    return operand(data.real, columns, transposed);
}

template <class T>
void multiply(ThreadPool& pool, const MatrixProduct<T>& product, const OneDnn* library = nullptr);

/// Several products whose results do not overlap, sharing one pool of tasks. Equal bit for bit to calling
/// multiply() for each. Where there is a library, it computes those of floats alone instead
/// (multiply_all_by).
template <class T>
void multiply_all(ThreadPool& pool, std::span<const MatrixProduct<T>> products,
                  const OneDnn* library = nullptr);

}  // namespace moesaic
