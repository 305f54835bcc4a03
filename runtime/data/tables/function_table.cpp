#include "runtime/data/tables/function_table.h"

#include <algorithm>
#include <array>
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

constexpr std::size_t kTeacherUnits = 16, kTeacherClasses = 4;

/// Coefficients of the teacher of `inputs` inputs: first layer, unit by unit, then the second, class by
/// class.
std::vector<double> teacher_coefficients(std::size_t inputs) {
    const Philox random(0, "coefficients of the teacher");
    const double scale = std::sqrt(6 / static_cast<double>(inputs));  // units then have variance 2
    std::vector<double> list(kTeacherUnits * (inputs + kTeacherClasses));
    for (std::size_t i = 0; i < list.size(); ++i)
        list[i] = random.normal(i) * (i < kTeacherUnits * inputs ? scale : 1);
    return list;
}

double teacher(std::span<const double> x) {
    thread_local std::vector<double> coefficients;
    if (coefficients.size() != kTeacherUnits * (x.size() + kTeacherClasses))
        coefficients = teacher_coefficients(x.size());
    std::array<double, kTeacherClasses> scores{};
    for (std::size_t unit = 0; unit < kTeacherUnits; ++unit) {
        double sum = 0;
        for (std::size_t i = 0; i < x.size(); ++i) sum += coefficients[unit * x.size() + i] * x[i];
        const double* const second = coefficients.data() + kTeacherUnits * x.size() + unit;
        for (std::size_t c = 0; c < kTeacherClasses; ++c)
            scores[c] += second[c * kTeacherUnits] * std::tanh(sum);
    }
    return static_cast<double>(std::ranges::max_element(scores) - scores.begin());
}

constexpr TestFunction kFunctions[] = {{"ackley", -5, 5, ackley},
                                       {"rastrigin", -5.12, 5.12, rastrigin},
                                       {"piecewise", 0, 1, piecewise},
                                       {"teacher", -1, 1, teacher, kTeacherClasses}};

/// The label, or with chance `share` one of the other classes.
double noisy_label(double label, int classes, double share, const Philox& noise, u64 row) {
    if (noise.uniform(2 * row) >= share) return label;
    const double other = 1 + std::floor(noise.uniform(2 * row + 1) * (classes - 1));
    return std::fmod(label + std::min(other, classes - 1.0), classes);
}

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
    for (int c = 0; c < function.classes; ++c) table.class_names.push_back(std::to_string(c));
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
        const double exact = function.value(x);
        table.targets.push_back(
            function.classes > 0
                ? noisy_label(exact, function.classes, options.noise, noise, static_cast<u64>(row))
                : exact + options.noise * noise.normal(static_cast<u64>(row)));
    }
    return table;
}

}  // namespace moesaic
