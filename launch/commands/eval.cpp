// moesaic eval: held-out and training-probe loss of a checkpoint.
#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include "launch/checkpoint_loading.h"
#include "launch/commands/commands.h"
#include "launch/generalization.h"
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

void print_json(const std::string& checkpoint, const EvalRecord& record, const EvaluationShards& shards) {
    JsonLine line;
    line.field("checkpoint", checkpoint);
    line.fields_of(record);
    line.field("heldout_sequences", std::ssize(shards.heldout));
    line.field("train_probe_sequences", std::ssize(shards.seen));
    std::printf("%s\n", line.text().c_str());
}

void print_bounds(const EvalRecord& record) {
    for (const auto& [name, gap] : record.gaps)
        std::printf("  gap of %-13s %.4f, %s [%.4f, %.4f]\n", name.c_str(), gap.value,
                    record.look ? "at all looks of the run at once" : "by itself", gap.low, gap.high);
    for (const auto& [name, bound] : record.bounds)
        std::printf("  bound %-26s %10.4g%s\n", name.c_str(), bound.value, bound.vacuous ? "  vacuous" : "");
    if (!record.prequential_off.empty())
        std::printf("  no certificate from fresh data: %s\n", record.prequential_off.c_str());
    if (!record.meaning.empty()) std::printf("  %s\n", record.meaning.c_str());
}

void print_record(const RunSetup& run, const std::string& checkpoint, const EvalRecord& record,
                  const Generalization& generalization) {
    const std::string unit = run.dataset->loss_unit();
    const EvaluationShards& shards = generalization.shards();
    const auto shard = [&](const char* name, std::optional<double> loss, std::optional<double> error,
                           std::size_t sequences) {
        if (!loss || !error) return;
        std::printf("  %-12s  loss %.4f %s  error %.4f  (%zu sequences)\n", name, *loss, unit.c_str(), *error,
                    sequences);
    };
    std::printf("%s (step %lld)\n", checkpoint.c_str(), static_cast<long long>(record.step));
    shard("held-out", record.heldout_loss, record.heldout_error, shards.heldout.size());
    print_domains(generalization.domains(), unit);
    shard("shifted", record.shifted_loss, record.shifted_error, shifted_windows(run).size());
    shard("train probe", record.train_probe_loss, record.train_probe_error, shards.seen.size());
    shard("train unseen", record.train_unseen_loss, record.train_unseen_error, shards.unseen.size());
    if (record.gap)
        std::printf("  gap           %.4f %s, %.0f %% interval%s [%.4f, %.4f]\n", *record.gap, unit.c_str(),
                    100 * (1 - run.config.generalization.delta), record.look ? " for all looks at once" : "",
                    *record.gap_low, *record.gap_high);
    print_bounds(record);
}

/// With --top-k the weights of the chosen experts sum to 1 if they did in training: `normalize: auto` means
/// the top_k that was trained.
Config evaluated_config(const EvalOptions& options, const std::string& checkpoint) {
    std::vector<std::string> overrides = any_layout();
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

/// Whether evaluations with the two configurations score the same model on the same units, with the same
/// confidence.
bool of_one_statement(const Config& one, const Config& other) {
    return one.run.seed == other.run.seed && one.task == other.task && one.model == other.model &&
           one.generalization == other.generalization && one.train.precision == other.train.precision &&
           one.train.batch_sequences == other.train.batch_sequences;
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
    Generalization generalization(runtime, run);
    generalization.begin(position, position.observers.empty());
    const bool as_in_run = of_one_statement(run.config, checkpoint_config(checkpoint, {}));
    EvalRecord record = generalization.evaluate_again(position, as_in_run);
    record_shifted(runtime, run, record);
    // The fresh data were met with the trained number of active experts.
    if (options.top_k)
        std::erase_if(record.bounds, [](const auto& one) { return one.first.starts_with("prequential"); });
    if (world.rank() != 0) return 0;
    if (options.json)
        print_json(checkpoint, record, generalization.shards());
    else
        print_record(run, checkpoint, record, generalization);
    return 0;
}

}  // namespace

int eval_command(const EvalOptions& options) {
    return run_on_ranks(options.ranks_as_threads,
                        [&](Communicator& world) { return eval_on_rank(options, world); });
}

}  // namespace moesaic
