#include "launch/logits.h"

#include <algorithm>

#include "launch/checkpoint_loading.h"
#include "runtime/data/npy.h"

namespace moesaic {

namespace {

/// Rows of the embedding table.
i64 vocabulary_of(const std::string& checkpoint) {
    const Manifest manifest = read_manifest(checkpoint);
    const auto table = manifest.tensors.find("model.embed_tokens.weight");
    if (table == manifest.tensors.end() || table->second.shape.empty())
        throw UserError(checkpoint + ": holds no language model");
    return table->second.shape[0];
}

void check_ids(const std::string& file, const TokenRows& tokens, i64 vocabulary) {
    if (tokens.ids.empty()) throw UserError(file + ": holds no tokens");
    const auto bad = std::ranges::find_if_not(tokens.ids, [&](i32 id) { return id >= 0 && id < vocabulary; });
    if (bad == tokens.ids.end()) return;
    throw UserError(fmt::format("{}: token {} of sequence {} is {}; the model knows 0 to {}", file,
                                (bad - tokens.ids.begin()) % tokens.columns,
                                (bad - tokens.ids.begin()) / tokens.columns, *bad, vocabulary - 1));
}

/// Collective over mesh.experts(). f32 [T,V] of one sequence; zeros where there is none.
std::vector<float> logits_of(RankRuntime& runtime, std::span<const i32> ids, i64 columns) {
    Tensor tokens = runtime.backend->allocate({std::max<i64>(std::ssize(ids), 1)}, DType::int32);
    std::ranges::copy(ids, tokens.as<i32>());
    const ConstTensorView view = tokens.slice_rows(0, std::ssize(ids));
    StepContext context = runtime.context(Phase::evaluate, 0);
    const Tensor logits = runtime.model.logits(context, {view, view, ids.empty() ? 0 : 1, columns});
    runtime.compute->synchronize();
    std::vector<float> values(static_cast<std::size_t>(columns * runtime.model.spec().vocabulary));
    const i64 count = logits.elements();
    if (logits.dtype() == DType::f64) {
        std::transform(logits.as<double>(), logits.as<double>() + count, values.begin(),
                       [](double value) { return static_cast<float>(value); });
    } else {
        std::copy_n(logits.as<float>(), count, values.begin());
    }
    return values;
}

}  // namespace

void write_logits(const Config& config, const std::string& checkpoint, const std::string& tokens_file,
                  const std::string& logits_file, Communicator& world) {
    const TokenRows tokens = read_token_rows(tokens_file);
    ModelSpec spec = resolve_model(config, vocabulary_of(checkpoint));
    check_ids(tokens_file, tokens, spec.vocabulary);
    spec.seq_len = tokens.columns;
    spec.micro_sequences = 1;
    world.set_timeout_seconds(config.parallel.timeout_seconds);
    RuntimeOptions options;
    options.threads = resolve_threads(config.cpu.threads, world.topology().ranks_per_node);
    RankRuntime runtime(config, spec, world, options);
    load_checkpoint(runtime, checkpoint, false);
    std::optional<NpyWriter> file;
    if (world.rank() == 0)
        file.emplace(logits_file, std::vector<i64>{tokens.rows, tokens.columns, spec.vocabulary}, true);
    const i64 size = tokens.columns * spec.vocabulary;
    std::vector<float> all(static_cast<std::size_t>(size * world.size()));
    for (i64 first = 0; first < tokens.rows; first += world.size()) {
        const i64 mine = first + world.rank();
        std::span<const i32> ids;
        if (mine < tokens.rows)
            ids = std::span(tokens.ids)
                      .subspan(static_cast<std::size_t>(mine * tokens.columns),
                               static_cast<std::size_t>(tokens.columns));
        const std::vector<float> values = logits_of(runtime, ids, tokens.columns);
        world.all_gather(*runtime.exchange, view_of(values.data(), {size}),
                         view_of(all.data(), {size * world.size()}), {"logits"});
        runtime.exchange->synchronize();
        const i64 sequences = std::min<i64>(world.size(), tokens.rows - first);
        if (file) file->append(std::span<const float>(all).first(static_cast<std::size_t>(sequences * size)));
    }
    if (file) file->finish();
}

}  // namespace moesaic
