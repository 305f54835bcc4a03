// Checks across fields, and the values that the contract names but this version does not have.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>

#include "runtime/base/build_flags.h"
#include "runtime/config/load.h"
#include "runtime/config/validate_router.h"
#include "runtime/config/validate_task.h"

namespace moesaic {

namespace {

/// A key whose value has to be one of `has` in this version. Later versions drop lines or add words.
struct Limitation {
    const char* key;
    Choices has;
};

const std::vector<Limitation>& limitations() {
    static const std::vector<Limitation> kLimitations{
        {"parallel.exchange", {"auto", "flat", "hierarchical", "dedup", "shared_memory"}},
        {"parallel.tensor", {"1"}},
        {"parallel.pipeline", {"1"}},
        {"parallel.context", {"1"}},
        {"generalization.loss", {"all"}},
        {"generalization.bounds", {"all"}},
    };
    return kLimitations;
}

void check_limitations(LoadedConfig& loaded) {
    const std::map<std::string, std::string> values = flatten(loaded.config);
    for (const Limitation& one : limitations()) {
        const std::string& value = values.at(one.key);
        if (std::find(one.has.begin(), one.has.end(), value) != one.has.end()) continue;
        loaded.complain(one.key, fmt::format("'{}' is not in this version", value),
                        fmt::format("it has {}", fmt::join(one.has, ", ")));
    }
}

void check_checksums(LoadedConfig& loaded) {
    if (!loaded.config.parallel.checksums || loaded.config.parallel.exchange != "shared_memory") return;
    loaded.complain("parallel.checksums", "rows that ranks write into shared memory are not sent",
                    "false, or parallel.exchange: flat, hierarchical or dedup");
}

void check_attention(LoadedConfig& loaded) {
    const ModelConfig& model = loaded.config.model;
    if (model.kind != "transformer") return;
    const bool uneven = !model.head_dim && model.width % model.heads != 0;
    if (uneven) {
        loaded.complain("model.heads",
                        fmt::format("{} heads do not divide width {}", model.heads, model.width),
                        "choose a divisor, or set model.head_dim");
    }
    const i64 head_dim = model.head_dim.value_or(model.width / std::max<i64>(1, model.heads));
    if (!uneven && (head_dim % 2 != 0 || head_dim == 0)) {
        loaded.complain(model.head_dim ? "model.head_dim" : "model.heads",
                        fmt::format("a head of width {} cannot be rotated in pairs", head_dim),
                        "an even width of a head");
    }
    if (model.heads % model.kv_heads != 0) {
        loaded.complain("model.kv_heads",
                        fmt::format("{} do not divide {} heads", model.kv_heads, model.heads),
                        "choose a divisor of model.heads");
    }
}

void check_experts(LoadedConfig& loaded, Purpose purpose) {
    const ModelConfig& model = loaded.config.model;
    const MoeConfig& moe = model.moe;
    const i64 slices = loaded.config.parallel.expert_tensor;
    if (moe.experts == 0) {
        if (loaded.config.parallel.expert.value_or(1) != 1)
            loaded.complain("parallel.expert", "a dense model has no experts to share", "1, or auto");
        if (slices != 1)
            loaded.complain("parallel.expert_tensor", "a dense model has no experts to cut into slices", "1");
        return;
    }
    if (model.kind != "momlp" && moe.hidden % slices != 0) {
        loaded.complain("parallel.expert_tensor",
                        fmt::format("{} ranks cannot share experts of width {} evenly", slices, moe.hidden),
                        "a divisor of model.moe.hidden");
    }
    if (moe.top_k > moe.experts) {
        loaded.complain("model.moe.top_k",
                        fmt::format("a token cannot visit {} of {} experts", moe.top_k, moe.experts),
                        fmt::format("at most model.moe.experts = {}", moe.experts));
    }
    check_router(loaded, purpose);
    if (moe.balance.load > 0 && moe.router.kind != "noisy_top_k") {
        loaded.complain(
            "model.moe.balance.load",
            fmt::format("expected loads come from a router's noise, and '{}' has none", moe.router.kind),
            "0, or router.kind: noisy_top_k; balance.importance needs no noise");
    } else if (moe.balance.load > 0 && moe.top_k >= moe.experts && purpose == Purpose::training) {
        loaded.complain("model.moe.balance.load", "a token visits every expert: there is no load to balance",
                        "0, or a smaller model.moe.top_k");
    }
    if (moe.every > model.layers) {
        loaded.complain("model.moe.every", fmt::format("no layer of {} would have experts", model.layers),
                        "at most model.layers");
    }
    if (moe.shared_gate && moe.shared_experts == 0) {
        loaded.complain("model.moe.shared_gate", "there is no shared expert to gate",
                        "model.moe.shared_experts: 1 or more, or shared_gate: false");
    }
    if (loaded.config.parallel.expert && moe.experts % *loaded.config.parallel.expert != 0) {
        loaded.complain("parallel.expert",
                        fmt::format("{} ranks cannot share {} experts evenly", *loaded.config.parallel.expert,
                                    moe.experts),
                        "a divisor of model.moe.experts, or auto");
    }
}

/// Parameters in f64, where nothing overflows.
void check_model_size(LoadedConfig& loaded) {
    const ModelConfig& model = loaded.config.model;
    const auto real = [](i64 value) { return static_cast<double>(value); };
    const i64 head_dim = model.head_dim.value_or(model.width / std::max<i64>(1, model.heads));
    const double feed_forward =
        3 * (real(model.moe.experts + model.moe.shared_experts) * real(model.moe.hidden) +
             real(model.dense_hidden));
    const double parameters =
        real(model.layers) * real(model.width) * (feed_forward + 4 * real(model.heads) * real(head_dim));
    if (parameters > 1e15) {
        loaded.complain("model", fmt::format("would have {:.0e} parameters", parameters),
                        "fewer or smaller layers and experts");
    }
}

bool names_an_id(const std::string& word) {
    i64 id = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    return error == std::errc() && end == word.data() + word.size() && id >= 0;
}

void check_end_of_document(LoadedConfig& loaded, const std::string& key, const std::string& word) {
    if (word == "auto" || word == "none" || names_an_id(word)) return;
    loaded.complain(key, fmt::format("'{}' is no token id", word.substr(0, 60)), "auto, none, or an id");
}

/// The last part of the path without ending, as the data name it.
std::string source_name(const SourceConfig& source) {
    if (source.name != "auto") return source.name;
    const std::filesystem::path path(source.path);
    return (path.has_filename() ? path : path.parent_path()).stem().string();
}

void check_sources(LoadedConfig& loaded) {
    const std::vector<SourceConfig>& sources = loaded.config.task.data.sources;
    double total = 0;
    std::vector<std::string> names;
    for (std::size_t i = 0; i < sources.size(); ++i) {
        const std::string key = fmt::format("task.data.sources.{}", i);
        if (sources[i].path.empty()) loaded.complain(key, "has no path", "path: FILE_OR_FOLDER");
        if (sources[i].format == "csv" || sources[i].format == "idx") {
            loaded.complain(key + ".format", fmt::format("'{}' is not in this version", sources[i].format),
                            "it has auto, text, jsonl, bin, megatron, npy");
        }
        if (sources[i].end_of_document != kInherit)
            check_end_of_document(loaded, key + ".end_of_document", sources[i].end_of_document);
        const std::string name = source_name(sources[i]);
        if (!sources[i].path.empty() && std::find(names.begin(), names.end(), name) != names.end())
            loaded.complain(key + ".name", fmt::format("'{}' is the name of another source too", name),
                            "give each source a name of its own: name: NAME");
        names.push_back(name);
        total += sources[i].weight;
    }
    if (!sources.empty() && !(total > 0))
        loaded.complain("task.data.sources", "no source has a weight above 0", "e.g. weight: 1");
}

void check_data(LoadedConfig& loaded) {
    const DataConfig& data = loaded.config.task.data;
    check_end_of_document(loaded, "task.data.end_of_document", data.end_of_document);
    check_sources(loaded);
    if (data.tokenizer == "none" && !data.vocabulary)
        loaded.complain("task.data.vocabulary", "without a tokenizer nothing says how many ids there are",
                        "the number of ids, e.g. 50257");
}

void check_sinks(LoadedConfig& loaded) {
    std::vector<std::string> sinks = loaded.config.metrics.sinks;
    std::sort(sinks.begin(), sinks.end());
    const auto twice = std::adjacent_find(sinks.begin(), sinks.end());
    if (twice != sinks.end())
        loaded.complain("metrics.sinks", fmt::format("'{}' is given twice", *twice), "name each sink once");
    if (!kHavePrometheus && std::ranges::find(sinks, "prometheus") != sinks.end())
        loaded.complain("metrics.sinks", "'prometheus' is not in this build",
                        "install prometheus-cpp-dev and build again");
    const std::string& address = loaded.config.metrics.prometheus.address;
    if (address.empty() || address.find_first_not_of("0123456789.abcdefABCDEF:[]") != std::string::npos)
        loaded.complain("metrics.prometheus.address", fmt::format("'{}' is no address by number", address),
                        "127.0.0.1, 0.0.0.0, or one of this machine's");
}

void check_training(LoadedConfig& loaded) {
    const Config& config = loaded.config;
    if (config.optimizer.schedule.warmup > config.train.steps &&
        config.optimizer.schedule.kind != "constant" && config.train.steps > 0) {
        loaded.complain("optimizer.schedule.warmup",
                        fmt::format("{} steps of warm-up in a run of {}", config.optimizer.schedule.warmup,
                                    config.train.steps),
                        "at most train.steps");
    }
    const std::string& name = config.run.name;
    const bool good_name =
        !name.empty() && name[0] != '.' && name.size() <= 200 &&
        std::all_of(name.begin(), name.end(), [](char c) {
            return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
        });
    if (!good_name) {
        loaded.complain("run.name", fmt::format("'{}' is no name for a folder", name.substr(0, 60)),
                        "letters, digits, '-', '_' and '.'");
    }
}

void check_exchange(LoadedConfig& loaded) {
    const ParallelConfig& parallel = loaded.config.parallel;
    const std::string& precision = loaded.config.train.precision;
    if (parallel.dedup_reduce == "node" && parallel.exchange != "dedup") {
        loaded.complain(
            "parallel.dedup_reduce",
            fmt::format("'node' says how dedup adds up, but the exchange is '{}'", parallel.exchange),
            "parallel.exchange: dedup, or dedup_reduce: exact");
    }
    if (parallel.wire == "auto") return;
    if (precision == "fp64" || (precision == "bf16" && parallel.wire == "fp32")) {
        loaded.complain("parallel.wire",
                        fmt::format("rows of a model in {} do not travel as {}", precision, parallel.wire),
                        "auto: as they are");
    }
}

/// Whoever sets an option of another kind expects an effect that it would not have.
void check_placement(LoadedConfig& loaded) {
    const PlacementConfig& placement = loaded.config.parallel.placement;
    const PlacementConfig untouched;
    const auto only_for = [&](bool touched, const char* key, const char* kind) {
        if (!touched || placement.kind == kind) return;
        loaded.complain(fmt::format("parallel.placement.{}", key),
                        fmt::format("has no meaning for kind {}", placement.kind),
                        fmt::format("leave it out, or kind: {}", kind));
    };
    only_for(placement.seed != untouched.seed, "seed", "permuted");
    only_for(placement.every != untouched.every, "every", "load_aware");
    only_for(placement.min_gain != untouched.min_gain, "min_gain", "load_aware");
    only_for(placement.copies != untouched.copies, "copies", "load_aware");
    if (placement.kind == untouched.kind) return;
    const ModelConfig& model = loaded.config.model;
    if (placement.copies > 0 && !model.moe.capacity.dropless && model.moe.capacity.pad)
        loaded.complain("parallel.placement.copies", "padded experts compute as much whatever their load is",
                        "0, or model.moe.capacity.pad: false");
    if (placement.copies > 0 && model.moe.experts > 0 && placement.copies >= model.moe.experts)
        loaded.complain(
            "parallel.placement.copies",
            fmt::format("{} places a rank for copies of other ranks' experts, of which there are {} "
                        "with its own",
                        placement.copies, model.moe.experts),
            "less than model.moe.experts");
    if (placement.kind == "load_aware" && model.moe.router.kind == "expert_choice")
        loaded.complain("parallel.placement.kind", "experts of expert_choice all take as many tokens",
                        "contiguous");
    if (model.moe.experts == 0)
        loaded.complain("parallel.placement.kind", "a dense model has no experts to place", "contiguous");
    if (model.kind == "momlp")
        loaded.complain("parallel.placement.kind", "an expert of a momlp stays with the samples of its cell",
                        "contiguous");
}

/// What adds up by ranks, in whatever precision, cannot be the same bits on any number of them.
void check_determinism(LoadedConfig& loaded) {
    const Config& config = loaded.config;
    if (config.train.determinism != "elastic") return;
    const auto complain = [&](bool bad, const char* key, const char* problem, const char* remedy) {
        if (bad) loaded.complain(key, fmt::format("train.determinism: elastic: {}", problem), remedy);
    };
    complain(config.train.precision == "fp64", "train.precision",
             "gradients are summed in steps of 1e-13, too coarse for fp64", "fp32 or bf16");
    complain(config.run.device == "cuda", "run.device", "cuBLAS chooses its kernels by the number of rows",
             "cpu");
    complain(config.cpu.gemm == "onednn", "cpu.gemm", "oneDNN orders a sum by the number of rows", "own");
    complain(config.model.kind == "momlp", "model.kind", "a momlp's experts add to their sums unrounded",
             "another kind");
    complain(config.model.moe.activation == "prelu", "model.moe.activation",
             "gradients of slopes are summed in the order of ranks", "another activation");
    complain(config.parallel.dedup_reduce == "node", "parallel.dedup_reduce",
             "a node's results are added up before they travel", "exact");
    complain(config.parallel.wire == "bf16" && config.train.precision == "fp32", "parallel.wire",
             "rows would be rounded only where they leave their rank", "auto");
    complain(config.parallel.placement.copies > 0, "parallel.placement.copies",
             "copies split an expert's sums over rows", "0");
    complain(config.parallel.expert_tensor > 1, "parallel.expert_tensor",
             "slices of an expert add up to results that are rounded otherwise than a whole one's", "1");
}

}  // namespace

std::string version_limits() {
    std::string text = "| key | this version has |\n| --- | --- |\n";
    for (const Limitation& one : limitations()) {
        text += fmt::format("| `{}` | {} |\n", one.key, fmt::join(one.has, ", "));
    }
    return text;
}

void validate(LoadedConfig& loaded, Purpose purpose) {
    check_limitations(loaded);
    check_task(loaded);
    check_attention(loaded);
    check_checksums(loaded);
    check_experts(loaded, purpose);
    check_model_size(loaded);
    check_data(loaded);
    check_sinks(loaded);
    check_training(loaded);
    check_exchange(loaded);
    check_placement(loaded);
    check_determinism(loaded);
}

}  // namespace moesaic
