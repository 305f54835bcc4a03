#include "runtime/data/tables/function_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/base/error.h"
#include "runtime/base/philox.h"

namespace moesaic {

namespace {

double ackley(std::span<const double> x) {
    double squares = 0, cosines = 0;
    for (const double v : x) {
        squares += v * v;
        cosines += std::cos(2 * std::numbers::pi * v);
    }
    const auto d = static_cast<double>(x.size());
    return 20 + std::numbers::e - 20 * std::exp(-0.2 * std::sqrt(squares / d)) - std::exp(cosines / d);
}

double rastrigin(std::span<const double> x) {
    double sum = 10 * static_cast<double>(x.size());
    for (const double v : x) sum += v * v - 10 * std::cos(2 * std::numbers::pi * v);
    return sum;
}

double piecewise(std::span<const double> x) {
    constexpr double kCells = 4;  // along each input
    u64 cell = 0;
    for (const double v : x)
        cell = cell * 4 + static_cast<u64>(std::clamp(std::floor(v * kCells), 0.0, kCells - 1));
    static const Philox kCoefficients(0, "coefficients of the piecewise function");
    const u64 first = cell * (x.size() + 1);
    double sum = kCoefficients.normal(first);
    for (std::size_t i = 0; i < x.size(); ++i) sum += kCoefficients.normal(first + 1 + i) * x[i];
    return sum;
}

constexpr TestFunction kFunctions[] = {
    {"ackley", -5, 5, ackley}, {"rastrigin", -5.12, 5.12, rastrigin}, {"piecewise", 0, 1, piecewise}};

}  // namespace

const TestFunction& test_function(std::string_view name) {
    std::string known;
    for (const TestFunction& function : kFunctions) {
        if (function.name == name) return function;
        known += fmt::format("{}{}", known.empty() ? "" : ", ", function.name);
    }
    throw UserError(fmt::format("task.data.function: there is no '{}'; known are: {}", name, known));
}

Table make_function_table(const FunctionOptions& options) {
    const TestFunction& function = test_function(options.function);
    const Philox inputs(options.seed, "inputs of " + options.function);
    const Philox noise(options.seed, "noise of " + options.function);
    Table table;
    table.rows = options.samples;
    table.columns = options.dimensions;
    table.target_name = options.function;
    table.layout = fmt::format("{} of {} inputs in [{}, {}], noise {}", options.function, options.dimensions,
                               function.low, function.high, options.noise);
    for (i64 i = 0; i < table.columns; ++i) table.feature_names.push_back(fmt::format("x{}", i + 1));
    table.features.reserve(static_cast<std::size_t>(table.rows * table.columns));
    table.targets.reserve(static_cast<std::size_t>(table.rows));
    std::vector<double> x(static_cast<std::size_t>(table.columns));
    for (i64 row = 0; row < table.rows; ++row) {
        for (i64 i = 0; i < table.columns; ++i) {
            const double place = inputs.uniform(static_cast<u64>(row * table.columns + i));
            const auto stored = static_cast<float>(function.low + place * (function.high - function.low));
            table.features.push_back(stored);
            x[static_cast<std::size_t>(i)] = static_cast<double>(stored);
        }
        table.targets.push_back(function.value(x) + options.noise * noise.normal(static_cast<u64>(row)));
    }
    return table;
}

}  // namespace moesaic
