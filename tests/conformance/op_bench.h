// A back end with the operands of one case of the table: what the checks of every back end are made of.
#pragma once

#include <memory>
#include <vector>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

/// The types of a case's buffers with `stored` for all that may be bf16.
[[nodiscard]] std::vector<DType> types_of(const OpCase& op_case, DType stored);
/// Which buffers of a case may be bf16 at once: all that are stored so, and, where types mix, each alone and
/// all but each.
[[nodiscard]] std::vector<std::vector<DType>> bf16_types(const OpCase& op_case);

/// Elements as doubles. The host has to be able to read the memory.
[[nodiscard]] double get(ConstTensorView view, i64 i);
void set(TensorView view, i64 i, double value);

/// The operands as they are before the call.
struct Bench {
    /// Each operand is a slice of its memory that begins at element `first`.
    Bench(const OpCase& op_case, const std::vector<DType>& types, std::unique_ptr<Backend> back_end,
          i64 first = 0);
    static void fill(TensorView view, const std::vector<double>& values);
    [[nodiscard]] Values values() const;
    void run(const OpCase& op_case);
    /// As two calls, the rows from `first` on after those before it.
    void run_split(const OpCase& op_case, i64 first, i64 rows);
    double objective(const OpCase& op_case) { return op_case.objective(*backend, *stream, views); }

    std::unique_ptr<Backend> backend;
    std::unique_ptr<Stream> stream;
    std::vector<Tensor> tensors;
    std::vector<TensorView> views;
};

/// Fails the running test where a buffer differs in a bit.
void expect_same_bits(const OpCase& op_case, const Bench& have, const Bench& want, const char* what);
/// How far two results of a case that ran with `stored` may be apart where products may differ
/// (OpCase::products): whole numbers not at all; others by 1e-5 of the number and of the buffer's largest,
/// bf16 by two more units in the last place, and what was rounded on the way by 1/256 of the largest.
[[nodiscard]] double allowed_apart(const OpCase& op_case, DType stored, DType type, double want,
                                   double largest);
/// Of the finite ones.
[[nodiscard]] double largest_of(const std::vector<double>& values);
/// Fails the running test where a buffer is further away than allowed_apart.
void expect_same_products(const OpCase& op_case, DType stored, const Bench& have, const Bench& want,
                          const char* what);
/// Bit for bit; of a case with products as far as allowed_apart.
void expect_same_but_products(const OpCase& op_case, DType stored, const Bench& have, const Bench& want,
                              const char* what);
/// Calls compare(bench, bench): the case on bf16, for every mixture that there may be, and what the same
/// operation in f32 gives for these numbers, rounded once. make(types) makes a bench of the case.
template <class Make, class Compare>
void compare_with_f32(const OpCase& op_case, const Make& make, const Compare& compare) {
    for (const std::vector<DType>& types : bf16_types(op_case)) {
        auto narrow = make(types), wide = make(types_of(op_case, DType::f32)), want = make(types);
        for (std::size_t i = 0; i < types.size(); ++i) Bench::fill(wide.views[i], narrow.values()[i]);
        narrow.run(op_case);
        wide.run(op_case);
        for (std::size_t i = 0; i < types.size(); ++i) Bench::fill(want.views[i], wide.values()[i]);
        compare(narrow, want);
    }
}
/// Fails the running test at the first element that is further from the plain loops than the case's tolerance
/// for `dtype`.
void expect_plain_loops(const OpCase& op_case, const Values& before, const Values& have, DType dtype);

}  // namespace moesaic::conformance
