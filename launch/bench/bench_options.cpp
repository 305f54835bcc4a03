#include "launch/bench/bench_options.h"

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

#include "launch/rank_runtime.h"
#include "runtime/base/error.h"

namespace moesaic {

void OptionMistakes::require(bool good, const std::string& text) {
    if (!good) text_ += (text_.empty() ? "" : "\n") + text;
}

void OptionMistakes::throw_if_any() const {
    if (!text_.empty()) throw UserError(text_);
}

std::optional<i64> parse_size(const std::string& text) {
    double value = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || !(value >= 0)) return {};
    constexpr std::string_view kUnits = "KMGT";
    std::string_view unit(rest, static_cast<std::size_t>(end - rest));
    if (!unit.empty()) {
        const auto power = kUnits.find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit[0]))));
        if (power == std::string_view::npos) return {};
        value *= std::pow(1024.0, static_cast<double>(power + 1));
        unit.remove_prefix(1);
        if (!unit.empty() && unit != "B" && unit != "iB") return {};
    }
    if (value > 9e15) return {};
    return static_cast<i64>(value);
}

std::optional<DType> parse_dtype(const std::string& name) {
    constexpr std::array<std::pair<std::string_view, DType>, 6> kNames{{{"fp32", DType::f32},
                                                                        {"fp64", DType::f64},
                                                                        {"bf16", DType::bf16},
                                                                        {"float", DType::f32},
                                                                        {"double", DType::f64},
                                                                        {"bfloat16", DType::bf16}}};
    for (const auto& [known, dtype] : kNames) {
        if (name == known) return dtype;
    }
    return {};
}

void check_dtype(const BenchOptions& options, OptionMistakes& mistakes) {
    mistakes.require(parse_dtype(options.dtype).has_value(),
                     fmt::format("--dtype: '{}' is not in this version; fp32, fp64 or bf16", options.dtype));
}

DType bench_dtype(const BenchOptions& options) {
    return parse_dtype(options.dtype).value();
}

int bench_threads(const BenchOptions& options, int ranks_per_node) {
    return resolve_threads(options.threads > 0 ? std::optional<i64>(options.threads) : std::nullopt,
                           ranks_per_node);
}

}  // namespace moesaic
