// moesaic convert upcycle: a dense model becomes a mixture whose experts are copies of its feed-forward
// (Komatsuzaki et al. 2022, "Sparse Upcycling", arXiv 2212.05055).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "launch/commands/commands.h"
#include "launch/convert/declared_parameters.h"
#include "launch/convert/imported_run.h"
#include "launch/rank_runtime.h"
#include "launch/trainer.h"
#include "runtime/base/log.h"
#include "runtime/base/philox.h"

namespace moesaic {

namespace {

/// "model.layers.3.mlp.gate_proj.weight" for "model.layers.3.mlp.experts.5.gate_proj.weight"; all other names
/// as they are.
std::string dense_name(const Parameter& parameter) {
    std::string name = parameter.name;
    for (const std::string& part :
         {fmt::format(".experts.{}.", parameter.expert), std::string(".shared_expert.")}) {
        if (const std::size_t at = name.find(part); at != std::string::npos)
            name.replace(at, part.size(), ".");
    }
    return name;
}

/// What the dense model has no counterpart of.
bool is_router(const Parameter& parameter) {
    for (const char* part : {".mlp.gate.weight", ".mlp.gate.noise.weight", ".mlp.prototypes.weight"}) {
        if (parameter.name.ends_with(part)) return true;
    }
    return false;
}

/// Asked for with --set model.moe.shared_experts: a dense model has nothing to start it from.
bool is_shared(const Parameter& parameter) {
    return parameter.name.find(".mlp.shared_expert") != std::string::npos;
}

double root_mean_square(const SafetensorsEntry& entry) {
    double squares = 0;
    for_each_piece(entry, [&](i64, std::span<const float> values) {
        for (const float value : values) squares += static_cast<double>(value) * value;
    });
    return std::sqrt(squares / static_cast<double>(std::max<i64>(entry.elements(), 1)));
}

/// Adds, or sets where there is nothing to add to, normal numbers that depend on seed, name and element
/// alone.
std::function<void(i64, std::span<float>)> normal_numbers(u64 seed, const std::string& name, double deviation,
                                                          bool add) {
    return [random = Philox(seed, name), deviation, add](i64 first, std::span<float> values) {
        for (std::size_t i = 0; i < values.size(); ++i) {
            const double draw = deviation * random.normal(static_cast<u64>(first) + i);
            values[i] = static_cast<float>((add ? values[i] : 0.0) + draw);
        }
    };
}

/// `sizes` remembers the root mean squares of the dense tensors, which every expert asks for.
PlannedTensor plan(const ConvertUpcycleOptions& options, const WeightSource& source,
                   const Parameter& parameter, std::map<std::string, double>& sizes) {
    PlannedTensor tensor;
    tensor.name = parameter.name;
    tensor.shape = extents_of(parameter.shape);
    if (is_router(parameter)) {
        tensor.make =
            normal_numbers(options.seed, parameter.name, options.zero_router ? 0 : parameter.init_std, false);
        return tensor;
    }
    if (is_shared(parameter) && parameter.shape.rank() > 1) {
        // Its last projection starts at zero, so that the mixture still computes what the dense model did.
        const bool last = parameter.name.ends_with(".down_proj.weight");
        tensor.make =
            normal_numbers(options.seed, parameter.name, last ? 0 : source.config.model.init_std, false);
        return tensor;
    }
    const std::string from = dense_name(parameter);
    tensor.source = source.find(from);
    if (parameter.expert >= 0 && options.noise > 0) {
        if (!sizes.contains(from)) sizes[from] = root_mean_square(*tensor.source);
        tensor.make = normal_numbers(options.seed, parameter.name, options.noise * sizes[from], true);
    }
    return tensor;
}

}  // namespace

int convert_upcycle_command(const ConvertUpcycleOptions& options) {
    const WeightSource source = WeightSource::open(options.source);
    for (const std::string& warning : source.warnings) log_warn("{}", warning);
    if (source.config.model.moe.experts > 0)
        throw UserError(fmt::format("{}: has {} experts already; upcycling begins with a dense model",
                                    source.description, source.config.model.moe.experts));
    if (options.top_k == 1)
        throw UserError(
            "--top-k 1: its weight would always be 1 (normalised weights keep the model what it was), and "
            "the "
            "router could not be trained; --top-k 2 or more");
    const ModelSpec dense = resolve_model(source.config, *source.config.model.vocabulary);
    source.require_plausible(dense);
    source.require(dense, declared_parameters(dense));

    Config config = source.config;
    config.model.moe = {};
    config.model.moe.experts = options.experts;
    config.model.moe.top_k = options.top_k;
    config.model.moe.every = options.every;
    config.model.moe.hidden = config.model.dense_hidden;
    config.model.moe.activation = source.config.model.moe.activation;
    config.model.moe.router.normalize = true;
    const ImportedTokenizer tokenizer = imported_tokenizer(source, options.out);
    config.task.data.tokenizer = tokenizer.name;
    config = run_config(config, options.out, options.overrides, Purpose::training);
    const ModelSpec spec = resolve_model(config, *source.config.model.vocabulary);
    std::vector<PlannedTensor> tensors;
    std::map<std::string, double> sizes;
    for (const Parameter& parameter : declared_parameters(spec))
        tensors.push_back(plan(options, source, parameter, sizes));
    for (const auto& [name, shape] : declared_buffers(spec)) {
        PlannedTensor& tensor = tensors.emplace_back();
        tensor.name = name;
        tensor.shape = extents_of(shape);
        tensor.make = [](i64, std::span<float> values) { std::fill(values.begin(), values.end(), 0.0F); };
    }
    const bool same_tokenizer = config.task.data.tokenizer == tokenizer.name;  // --set may say another
    write_run_folder(options.out, config, same_tokenizer ? tokenizer.fingerprint : "", tensors,
                     companions(source));
    const ParameterCounts counts = count_parameters(spec);
    std::printf("upcycled %s: %lld parameters became %lld, %lld of them active per token\n",
                source.description.c_str(), static_cast<long long>(count_parameters(dense).total),
                static_cast<long long>(counts.total), static_cast<long long>(counts.active));
    std::printf("  run folder    %s (step 0)\n", options.out.c_str());
    std::printf("  train it      moesaic train %s/config.yaml --resume %s\n", options.out.c_str(),
                options.out.c_str());
    return 0;
}

}  // namespace moesaic
