// moesaic eval: held-out and training-probe loss of a checkpoint.
#include <algorithm>
#include <cstdio>
#include <map>

#include "launch/checkpointer.h"
#include "launch/commands/commands.h"
#include "launch/evaluation.h"
#include "launch/logits.h"
#include "launch/ranks.h"
#include "launch/run_setup.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

/// A line for each source or file, where there are several.
void print_domains(const std::vector<DomainScore>& domains) {
    if (domains.size() < 2) return;
    std::size_t width = 0;
    for (const DomainScore& domain : domains) width = std::max(width, domain.name.size());
    for (const DomainScore& domain : domains) {
        std::printf("    %-*s  loss %.4f nats/token  error %.4f  (%lld sequences)\n", static_cast<int>(width),
                    domain.name.c_str(), domain.loss, domain.error, static_cast<long long>(domain.sequences));
    }
}

void print_scores(const EvalOptions& options, const std::string& checkpoint, i64 step,
                  const ShardScores& heldout, const std::vector<DomainScore>& domains,
                  const ShardScores& probe, double delta) {
    const GapEstimate gap = estimate_gap(heldout, probe, delta);
    if (options.json) {
        JsonLine line;
        line.field("checkpoint", checkpoint).field("step", step);
        line.field("heldout_loss", heldout.mean_loss()).field("heldout_error", heldout.mean_error());
        line.field("heldout_sequences", std::ssize(heldout.loss));
        line.field("train_probe_loss", probe.mean_loss()).field("train_probe_error", probe.mean_error());
        line.field("train_probe_sequences", std::ssize(probe.loss));
        std::map<std::string, double> by_source;
        for (const DomainScore& domain : domains) by_source[domain.name] = domain.loss;
        line.field("heldout_by_source", by_source);
        line.field("gap", gap.gap).field("gap_low", gap.low).field("gap_high", gap.high);
        std::printf("%s\n", line.text().c_str());
        return;
    }
    std::printf("%s (step %lld)\n", checkpoint.c_str(), static_cast<long long>(step));
    std::printf("  held-out      loss %.4f nats/token  error %.4f  (%zu sequences)\n", heldout.mean_loss(),
                heldout.mean_error(), heldout.loss.size());
    print_domains(domains);
    std::printf("  train probe   loss %.4f nats/token  error %.4f  (%zu sequences)\n", probe.mean_loss(),
                probe.mean_error(), probe.loss.size());
    std::printf("  gap           %.4f nats/token, %.0f %% interval [%.4f, %.4f]\n", gap.gap,
                100 * (1 - delta), gap.low, gap.high);
}

/// With --top-k the weights of the chosen experts sum to 1 if they did in training: `normalize: auto` means
/// the top_k that was trained.
Config evaluated_config(const EvalOptions& options, const std::string& checkpoint) {
    std::vector<std::string> overrides;
    if (options.top_k) {
        const MoeConfig trained = checkpoint_config(checkpoint, {}).model.moe;
        if (trained.experts == 0)
            throw UserError("--top-k: the model is dense: no expert can be chosen; evaluate it without");
        overrides.push_back(fmt::format("model.moe.router.normalize={}", trained.normalized()));
        overrides.push_back(fmt::format("model.moe.top_k={}", *options.top_k));
    }
    overrides.insert(overrides.end(), options.overrides.begin(), options.overrides.end());
    return checkpoint_config(checkpoint, overrides);
}

int eval_on_rank(const EvalOptions& options, Communicator& world) {
    const std::string checkpoint = resolve_checkpoint(options.checkpoint);
    if (options.logits.empty() != options.tokens.empty())
        throw UserError("--logits FILE.npy and --tokens FILE.npy belong together: give both");
    if (!options.logits.empty()) {
        write_logits(evaluated_config(options, checkpoint), checkpoint, options.tokens, options.logits,
                     world);
        return 0;
    }
    const RunSetup run = set_up_run(evaluated_config(options, checkpoint));
    check_tokenizer(run, checkpoint);
    world.set_timeout_seconds(run.config.parallel.timeout_seconds);
    RuntimeOptions runtime_options;
    runtime_options.threads = resolve_threads(run.config.cpu.threads, world.topology().ranks_per_node);
    RankRuntime runtime(run.config, run.spec, world, runtime_options);
    const TrainingPosition position = load_checkpoint(runtime, checkpoint, false);
    const std::vector<i64> windows = heldout_windows(run);
    const ShardScores heldout = evaluate_windows(runtime, run, windows, true);
    const ShardScores probe = evaluate_windows(runtime, run, probe_windows(run), false);
    if (world.rank() == 0) {
        print_scores(options, checkpoint, position.step, heldout,
                     scores_by_domain(*run.dataset, windows, heldout), probe,
                     run.config.generalization.delta);
    }
    return 0;
}

}  // namespace

int eval_command(const EvalOptions& options) {
    return run_on_ranks(options.ranks_as_threads,
                        [&](Communicator& world) { return eval_on_rank(options, world); });
}

}  // namespace moesaic
