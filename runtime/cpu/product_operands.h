// What the CPU back end's products share: types, results in bf16, packed copies, and groups whose numbers
// have to outlive the call.
#pragma once

#include <initializer_list>
#include <numeric>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/cpu/checks.h"
#include "runtime/cpu/element_types.h"
#include "runtime/cpu/elementwise.h"
#include "runtime/cpu/gemm.h"
#include "runtime/stream.h"

namespace moesaic::cpu {

/// The type that a product is computed in; aborts unless each operand is f32 or bf16, or all are f64.
inline DType product_type(std::initializer_list<ConstTensorView> operands, std::string_view name) {
    const DType real = accumulation_type(operands.begin()->dtype);
    expect_real(real, name);
    for (const ConstTensorView& view : operands) {
        expect(view, view.dtype, name);
        MOESAIC_ASSERT(accumulation_type(view.dtype) == real, "{} mixes {} with {}", name,
                       name_of(view.dtype), name_of(operands.begin()->dtype));
    }
    return real;
}

/// Where an operand stands, for a product computed in Real.
template <class Real>
[[nodiscard]] Elements<Real> elements_of(ConstTensorView view) {
    if (view.elements() == 0) return {};
    if (view.dtype == DType::bf16) return view.as<BFloat16>();
    return view.as<Real>();
}

/// Where weights' gradients are added, in f64 or in Real.
template <class Real>
[[nodiscard]] SumElements<Real> sums_in(TensorView view) {
    if (view.elements() == 0) return {};
    if (view.dtype == DType::f64) return view.as<double>();
    return view.as<Real>();
}

/// The memory of an element.
template <class View>
[[nodiscard]] auto* element_at(const View& view, i64 row, i64 column) {
    return view.flat(row * view.cols() + column, 0).data;
}

/// Rounds the blocks of a product in f32 into its bf16 result.
class RoundingWork final : public BlockWork<float> {
  public:
    explicit RoundingWork(TensorView c) : c_(c) {}
    void begin(const ResultBlock<float>& block) const override {
        widen_rows(rows_of(block), place_of(block), block.c);
    }
    void run(const ResultBlock<float>& block) const override {
        round_rows(rows_of(block), block.c, place_of(block));
    }

  private:
    [[nodiscard]] RowBlock rows_of(const ResultBlock<float>& block) const {
        return {block.rows, block.columns, block.c_row_stride, c_.cols()};
    }
    [[nodiscard]] BFloat16* place_of(const ResultBlock<float>& block) const {
        return c_.as<BFloat16>() + block.first_row * c_.cols() + block.first_column;
    }

    TensorView c_;
};

/// What a product in Real writes to: one of them.
template <class Real>
struct ProductResult {
    Real* c = nullptr;
    BFloat16* rounded = nullptr;
    const BlockWork<Real>* work = nullptr;  ///< that rounds what is added to a bf16 result
};

/// Calls multiply(ProductResult).
template <class Real, class Multiply>
void with_result(TensorView result, bool accumulate, const Multiply& multiply) {
    if constexpr (std::is_same_v<Real, float>) {
        if (result.dtype == DType::bf16) {
            if (!accumulate) return multiply(ProductResult<Real>{.rounded = result.as<BFloat16>()});
            const RoundingWork work(result);
            return multiply(ProductResult<Real>{.work = &work});
        }
    }
    multiply(ProductResult<Real>{.c = result.data ? result.as<Real>() : nullptr});
}

/// Elements of the copies of G matrices b [P,N], whose columns come in halves.
[[nodiscard]] inline i64 elements_of_copies(DType dtype, i64 groups, i64 p, i64 n, i64 halves = 1) {
    i64 elements = 0;
    with_stored(dtype, [&](auto element) {
        elements = groups * halves * packed_elements<decltype(element)>(p, n / halves);
    });
    return elements;
}

/// A copy has its operand's type.
inline void check_packed(ConstTensorView packed, DType dtype, i64 groups, i64 p, i64 n, i64 halves = 1) {
    if (packed.elements() > 0)
        expect(packed, elements_of_copies(dtype, groups, p, n, halves), 1, dtype, "packed b");
}

/// The elements of an operand that may be left out.
template <class Element>
[[nodiscard]] const Element* data_or_null(ConstTensorView view) {
    return view.elements() > 0 ? view.as<Element>() : nullptr;
}

/// Runs `work(numbers)`, with a copy of the numbers when it has to wait: their memory may be gone then.
template <class Work>
void run_with_numbers(Stream& stream, std::span<const i64> numbers, Work&& work) {
    if (static_cast<HostStream&>(stream).inline_execution()) {
        work(numbers);
    } else {
        run_on_host(stream, [work, copy = std::vector<i64>(numbers.begin(), numbers.end())] {
            work(std::span<const i64>(copy));
        });
    }
}

}  // namespace moesaic::cpu
