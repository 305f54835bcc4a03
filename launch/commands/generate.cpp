// moesaic generate: continue a prompt with a trained language model, on one rank.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "comm/self_communicator.h"
#include "launch/checkpoint_loading.h"
#include "launch/commands/commands.h"
#include "launch/ranks.h"
#include "launch/run_setup.h"
#include "runtime/base/philox.h"
#include "runtime/checkpoint/checkpoint_folder.h"

namespace moesaic {

namespace {

/// Draws from softmax(logits / temperature) by the inverse of its distribution function; temperature 0: the
/// likeliest.
i32 sample_token(const std::vector<double>& logits, double temperature, double uniform) {
    const auto best = std::max_element(logits.begin(), logits.end());
    if (temperature == 0) return static_cast<i32>(best - logits.begin());
    std::vector<double> weights(logits.size());
    double total = 0;
    for (std::size_t i = 0; i < logits.size(); ++i)
        total += weights[i] = std::exp((logits[i] - *best) / temperature);
    double left = uniform * total;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        left -= weights[i];
        if (left < 0) return static_cast<i32>(i);
    }
    return static_cast<i32>(best - logits.begin());
}

std::vector<double> last_logits(RankRuntime& runtime, const std::vector<i32>& context_tokens) {
    const auto count = static_cast<i64>(context_tokens.size());
    Tensor tokens = runtime.backend->allocate({count}, DType::int32);
    std::copy(context_tokens.begin(), context_tokens.end(), tokens.as<i32>());
    StepContext context = runtime.context(Phase::evaluate, 0);
    const Tensor logits = runtime.model.logits(context, {tokens, tokens, 1, count});
    runtime.compute->synchronize();
    const ConstTensorView row = logits.slice_rows(count - 1, 1);
    std::vector<double> values(static_cast<std::size_t>(row.elements()));
    if (row.dtype == DType::f64) {
        std::copy_n(row.as<double>(), row.elements(), values.begin());
    } else {
        std::copy_n(row.as<float>(), row.elements(), values.begin());
    }
    return values;
}

int generate_on_rank(const GenerateOptions& options, Communicator& world) {
    if (world.size() > 1) throw UserError("generate runs on one rank: start it without mpirun");
    const std::string checkpoint = resolve_checkpoint(options.checkpoint);
    std::vector<std::string> overrides = any_layout();
    overrides.insert(overrides.end(), options.overrides.begin(), options.overrides.end());
    const RunSetup run = set_up_run(checkpoint_config(checkpoint, overrides));
    expect_language_model(run, "generate");
    check_tokenizer(run, checkpoint);
    RuntimeOptions runtime_options;
    runtime_options.threads = resolve_threads(run.config.cpu.threads, 1);
    RankRuntime runtime(run.config, run.spec, world, runtime_options);
    load_checkpoint(runtime, checkpoint, false);
    std::vector<i32> tokens = run.tokenizer->encode(options.prompt);
    if (tokens.empty()) throw UserError("--prompt is empty: give at least one character to continue");
    std::fputs(options.prompt.c_str(), stdout);
    const Philox random(options.seed, "generation");
    const auto window = static_cast<std::size_t>(run.spec.seq_len);
    for (long i = 0; i < options.tokens; ++i) {
        // The model knows seq_len positions: older tokens fall out of its sight.
        const std::size_t first = tokens.size() > window ? tokens.size() - window : 0;
        const std::vector<i32> visible(tokens.begin() + static_cast<std::ptrdiff_t>(first), tokens.end());
        std::vector<double> logits = last_logits(runtime, visible);
        logits.resize(
            std::min(logits.size(),
                     static_cast<std::size_t>(run.tokenizer->vocabulary_size())));  // rows beyond are no text
        tokens.push_back(sample_token(logits, options.temperature, random.uniform(static_cast<u64>(i))));
        if (tokens.back() == run.tokenizer->end_of_text()) break;
        // A token may be half a character: the bytes go out as they are, and the next token completes them.
        const std::string text = run.tokenizer->decode(std::span(tokens).last(1));
        std::fwrite(text.data(), 1, text.size(), stdout);
        std::fflush(stdout);
    }
    std::fputc('\n', stdout);
    return 0;
}

}  // namespace

int generate_command(const GenerateOptions& options) {
    return run_on_ranks(0, [&](Communicator& world) { return generate_on_rank(options, world); });
}

}  // namespace moesaic
