// Examples of known functions, drawn by number: the same for every run with the same options.
#pragma once

#include <span>
#include <string_view>

#include "runtime/data/tables/table.h"

namespace moesaic {

/// A function of d inputs in [low, high].
struct TestFunction {
    std::string_view name;
    double low, high;
    double (*value)(std::span<const double> x);
    int classes = 0;  ///< 0: a value; else the value is the number of a class
};

/// ackley: 20 + e - 20 exp(-0.2 sqrt(mean x²)) - exp(mean cos 2πx) on [-5, 5] (Ackley 1987); rastrigin: 10 d
/// + sum (x² - 10 cos 2πx) on [-5.12, 5.12] (Rastrigin 1974); piecewise: a linear function of its own, with
/// coefficients drawn from N(0,1), on each of the 4^d equal cells of [0, 1], with jumps between them;
/// teacher: which of four outputs of a random network is largest, argmax_c sum_h v_ch tanh(<u_h, x>), 16
/// hidden units, on
/// [-1, 1].
/// Throws UserError naming the known ones.
[[nodiscard]] const TestFunction& test_function(std::string_view name);

struct FunctionOptions {
    std::string function;
    i64 dimensions = 2, samples = 10000;
    double noise =
        0;  ///< standard deviation of what is added to values; share of labels that are another class
    u64 seed = 1;
};
/// Inputs uniform in the function's domain.
[[nodiscard]] Table make_function_table(const FunctionOptions& options);

}  // namespace moesaic
