// What tests that go through the table of routers try each of them with.
#pragma once

#include <fmt/ranges.h>
#include <unistd.h>

#include <cstdlib>
#include <ostream>
#include <string>
#include <vector>

#include "comm/routing_trace.h"
#include "launch/rank_runtime.h"
#include "layers/router.h"
#include "runtime/config/load.h"

namespace moesaic {

/// A trace of two steps of 40 tokens whose choices are distinct and uneven; removed at the end.
class SmallTrace {
  public:
    SmallTrace(i64 layers, i64 choices, i64 experts)
        : path_(fmt::format("{}/moesaic-trace-{}-{}-{}.npy", testing_folder(), getpid(), layers, choices)) {
        constexpr i64 steps = 2, tokens = 40;
        RoutingTraceWriter writer(path_, {steps, layers, tokens, choices});
        std::vector<i32> row(static_cast<std::size_t>(choices));
        for (i64 i = 0; i < steps * layers * tokens; ++i) {
            for (i64 k = 0; k < choices; ++k)
                row[static_cast<std::size_t>(k)] =
                    static_cast<i32>((i * i + i / (layers * tokens) + k) % experts);
            writer.write(i / (layers * tokens) + 1, i / tokens % layers, i % tokens, row);
        }
    }
    SmallTrace(const SmallTrace&) = delete;
    SmallTrace& operator=(const SmallTrace&) = delete;
    ~SmallTrace() { unlink(path_.c_str()); }
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    [[nodiscard]] static std::string testing_folder() {
        const char* const folder = getenv("TMPDIR");
        return folder != nullptr ? folder : "/tmp";
    }
    std::string path_;
};

/// One way to use a router, as overrides of a configuration ("scale=2.5" sets model.moe.router.scale).
struct RouterVariant {
    std::string kind;
    i64 top_k = 2;
    std::vector<std::string> options;
    [[nodiscard]] std::string name() const {
        return fmt::format("{} top_k {} {}", kind, top_k, fmt::join(options, " "));
    }
    friend std::ostream& operator<<(std::ostream& stream, const RouterVariant& variant) {
        return stream << variant.name();
    }
    /// For --set.
    [[nodiscard]] std::vector<std::string> overrides() const {
        std::vector<std::string> all{"model.moe.router.kind=" + kind,
                                     fmt::format("model.moe.top_k={}", top_k)};
        for (const std::string& option : options) all.push_back("model.moe.router." + option);
        return all;
    }
};

/// Variants of one kind for a model of 4 experts or a multiple; `trace` is a file for replay with two
/// choices. A kind without a line here fails the tests that ask.
[[nodiscard]] inline std::vector<RouterVariant> router_variants(std::string_view kind,
                                                                const std::string& trace) {
    static const std::vector<RouterVariant> kAll{
        {"top_k", 2, {"normalize=false"}},
        {"top_k", 2, {}},
        {"top_k", 2, {"score=softmax_over_top_k", "scale=2.5"}},
        {"top_k", 1, {"scale=0.5"}},
        {"top_k", 2, {"score=sigmoid", "normalize=false", "scale=1.5"}},
        {"top_k", 2, {"score=sigmoid"}},
        {"noisy_top_k", 2, {}},
        {"noisy_top_k", 1, {"scale=2"}},
        {"switch", 1, {}},
        {"switch", 1, {"jitter=0.2"}},
        {"sigmoid_bias", 2, {"scale=2.5", "bias_rate=0.05"}},
        {"sigmoid_bias", 1, {"bias_recentre=true"}},
        {"sigmoid_bias", 2, {"groups=2", "top_groups=1", "group_score=top2_sum"}},
        {"group_limited", 2, {"groups=2", "top_groups=1"}},
        {"group_limited", 1, {"groups=4", "top_groups=2", "score=sigmoid"}},
        {"group_limited", 2, {"groups=2", "top_groups=1", "group_score=top2_sum", "normalize=false"}},
        {"sinkhorn", 2, {}},
        {"sinkhorn", 1, {"score=sigmoid", "sinkhorn_scope=micro", "sinkhorn_iterations=3"}},
        {"expert_choice", 2, {"allow_noncausal=true"}},
        {"expert_choice", 1, {"allow_noncausal=true", "scale=3"}},
        {"hash", 2, {}},
        {"hash", 1, {"hash_seed=5"}},
        {"uniform", 2, {}},
        {"uniform", 2, {"traffic=zipf:1.0"}},
        {"uniform", 2, {"traffic=burst"}},
        {"nearest_prototype", 1, {}},
        {"nearest_prototype", 1, {"prototypes=fixed"}},
        {"replay", 2, {}},
    };
    std::vector<RouterVariant> chosen;
    for (RouterVariant variant : kAll) {
        if (variant.kind != kind) continue;
        if (kind == "replay") variant.options.push_back("trace=" + trace);
        chosen.push_back(variant);
    }
    return chosen;
}

/// Makes a model of spec.experts experts use this variant.
inline void use_variant(const RouterVariant& variant, ModelSpec& spec) {
    std::vector<std::string> overrides = variant.overrides();
    overrides.push_back(fmt::format("model.moe.experts={}", spec.experts));
    LoadedConfig loaded = parse_config("", "variant", overrides, Purpose::inference);
    loaded.diagnostics.throw_if_any();
    const ModelSpec resolved = resolve_model(loaded.config, spec.vocabulary);
    spec.router = resolved.router;
    spec.top_k = resolved.top_k;
}

}  // namespace moesaic
