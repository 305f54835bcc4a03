#include "launch/bench/bench_options.h"

#include <charconv>

#include "launch/rank_runtime.h"
#include "runtime/base/error.h"

namespace moesaic {

namespace {

std::optional<double> parse_skew(const std::string& traffic) {
    if (traffic == "uniform") return 0.0;
    constexpr std::string_view kZipf = "zipf:";
    if (!traffic.starts_with(kZipf)) return {};
    double skew = 0;
    const char* const end = traffic.data() + traffic.size();
    const auto [rest, error] = std::from_chars(traffic.data() + kZipf.size(), end, skew);
    if (error != std::errc() || rest != end || !(skew >= 0 && skew <= 20)) return {};
    return skew;
}

}  // namespace

void check_bench_options(const BenchOptions& options) {
    std::string mistakes;
    const auto require = [&](bool good, std::string text) {
        if (!good) mistakes += (mistakes.empty() ? "" : "\n") + std::move(text);
    };
    require(options.dtype == "fp32" || options.dtype == "fp64",
            fmt::format("--dtype: '{}' is not in this version; fp32 or fp64", options.dtype));
    require(parse_skew(options.traffic).has_value(),
            fmt::format("--traffic: '{}' is not in this version; uniform or zipf:S, S from 0 to 20",
                        options.traffic));
    require(options.top_k <= options.experts,
            fmt::format("--top-k: {} of {} experts; at most --experts", options.top_k, options.experts));
    require(options.width == 0 || options.width >= options.experts,
            fmt::format(
                "--width: {} is less than --experts {}; the benchmark's router reads one column per expert",
                options.width, options.experts));
    if (!mistakes.empty()) throw UserError(mistakes);
}

DType bench_dtype(const BenchOptions& options) {
    return options.dtype == "fp64" ? DType::f64 : DType::f32;
}

int bench_threads(const BenchOptions& options, int ranks_per_node) {
    return resolve_threads(options.threads > 0 ? std::optional<i64>(options.threads) : std::nullopt,
                           ranks_per_node);
}

double traffic_skew(const BenchOptions& options) {
    return parse_skew(options.traffic).value_or(0.0);
}

}  // namespace moesaic
