// What the CPU back end's products share: types, packed copies, and groups whose numbers have to outlive the
// call.
#pragma once

#include <numeric>
#include <span>
#include <vector>

#include "runtime/cpu/checks.h"
#include "runtime/cpu/gemm.h"
#include "runtime/stream.h"

namespace moesaic::cpu {

/// Calls `kernel` with a value of the real type that `dtype` stands for.
template <class Kernel>
void with_real(DType dtype, Kernel&& kernel) {
    if (dtype == DType::f32) {
        kernel(float{});
    } else {
        kernel(double{});
    }
}

/// Elements of the copies of G matrices b [P,N], whose columns come in halves.
[[nodiscard]] inline i64 elements_of_copies(DType real, i64 groups, i64 p, i64 n, i64 halves = 1) {
    i64 elements = 0;
    with_real(real, [&](auto element) {
        elements = groups * halves * packed_elements<decltype(element)>(p, n / halves);
    });
    return elements;
}

inline void check_packed(ConstTensorView packed, DType real, i64 groups, i64 p, i64 n, i64 halves = 1) {
    if (packed.elements() > 0)
        expect(packed, elements_of_copies(real, groups, p, n, halves), 1, real, "packed b");
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
