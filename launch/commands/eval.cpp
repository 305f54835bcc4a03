// moesaic eval: held-out and training-probe loss of a checkpoint.
#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include "launch/checkpointer.h"
#include "launch/commands/commands.h"
#include "launch/evaluation.h"
#include "launch/logits.h"
#include "launch/prototypes.h"
#include "launch/ranks.h"
#include "launch/run_setup.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

/// A line for each source or file, where there are several.
void print_domains(const std::vector<DomainScore>& domains, const std::string& unit) {
    if (domains.size() < 2) return;
    std::size_t width = 0;
    for (const DomainScore& domain : domains) width = std::max(width, domain.name.size());
    for (const DomainScore& domain : domains) {
        std::printf("    %-*s  loss %.4f %s  error %.4f  (%lld sequences)\n", static_cast<int>(width),
                    domain.name.c_str(), domain.loss, unit.c_str(), domain.error,
                    static_cast<long long>(domain.sequences));
    }
}

/// What an evaluation found.
struct Scores {
    ShardScores heldout, probe;
    std::optional<ShardScores> shifted;  // where the task has samples from another distribution
    std::vector<DomainScore> domains;
};

void print_json(const std::string& checkpoint, i64 step, const Scores& scores, const GapEstimate& gap) {
    const ShardScores &heldout = scores.heldout, &probe = scores.probe;
    JsonLine line;
    line.field("checkpoint", checkpoint).field("step", step);
    line.field("heldout_loss", heldout.mean_loss()).field("heldout_error", heldout.mean_error());
    line.field("heldout_sequences", std::ssize(heldout.loss));
    line.field("train_probe_loss", probe.mean_loss()).field("train_probe_error", probe.mean_error());
    line.field("train_probe_sequences", std::ssize(probe.loss));
    if (scores.shifted) {
        line.field("shifted_loss", scores.shifted->mean_loss());
        line.field("shifted_error", scores.shifted->mean_error());
    }
    std::map<std::string, double> by_source;
    for (const DomainScore& domain : scores.domains) by_source[domain.name] = domain.loss;
    line.field("heldout_by_source", by_source);
    line.field("gap", gap.gap).field("gap_low", gap.low).field("gap_high", gap.high);
    std::printf("%s\n", line.text().c_str());
}

void print_scores(const RunSetup& run, const std::string& checkpoint, i64 step, const Scores& scores,
                  const GapEstimate& gap) {
    const std::string unit = run.dataset->loss_unit();
    const auto shard = [&](const char* name, const ShardScores& one) {
        std::printf("  %-12s  loss %.4f %s  error %.4f  (%zu sequences)\n", name, one.mean_loss(),
                    unit.c_str(), one.mean_error(), one.loss.size());
    };
    std::printf("%s (step %lld)\n", checkpoint.c_str(), static_cast<long long>(step));
    shard("held-out", scores.heldout);
    print_domains(scores.domains, unit);
    if (scores.shifted) shard("shifted", *scores.shifted);
    shard("train probe", scores.probe);
    std::printf("  gap           %.4f %s, %.0f %% interval [%.4f, %.4f]\n", gap.gap, unit.c_str(),
                100 * (1 - run.config.generalization.delta), gap.low, gap.high);
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
    adopt_prototypes(runtime, run, checkpoint);
    const std::vector<i64> windows = heldout_windows(run);
    Scores scores;
    scores.heldout = evaluate_windows(runtime, run, windows, true);
    scores.probe = evaluate_windows(runtime, run, probe_windows(run), false);
    if (const std::vector<i64> shifted = shifted_windows(run); !shifted.empty())
        scores.shifted = evaluate_windows(runtime, run, shifted, true);
    if (world.rank() != 0) return 0;
    scores.domains = scores_by_domain(*run.dataset, windows, scores.heldout);
    const GapEstimate gap = estimate_gap(scores.heldout, scores.probe, run.config.generalization.delta);
    if (options.json) {
        print_json(checkpoint, position.step, scores, gap);
    } else {
        print_scores(run, checkpoint, position.step, scores, gap);
    }
    return 0;
}

}  // namespace

int eval_command(const EvalOptions& options) {
    return run_on_ranks(options.ranks_as_threads,
                        [&](Communicator& world) { return eval_on_rank(options, world); });
}

}  // namespace moesaic
