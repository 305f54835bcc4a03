#include "launch/evaluation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "launch/batch_windows.h"
#include "launch/micro_batches.h"
#include "runtime/metrics/paired_change.h"

namespace moesaic {

namespace {

/// Sequences in their order, which is the same on every layout, and so is the sum to the last bit.
double mean_of(const std::vector<double>& values, const std::vector<double>& weights) {
    double sum = 0, total = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        sum += weights[i] * values[i];
        total += weights[i];
    }
    return total > 0 ? sum / total : 0.0;
}

/// Of the weighted mean, to first order: n/(n-1) sum_i w_i^2 (x_i - mean)^2 / (sum w)^2.
double variance_of_mean(const std::vector<double>& values, const std::vector<double>& weights) {
    if (values.size() < 2) return std::numeric_limits<double>::infinity();
    const double mean = mean_of(values, weights);
    double squares = 0, total = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        squares += weights[i] * weights[i] * (values[i] - mean) * (values[i] - mean);
        total += weights[i];
    }
    const auto count = static_cast<double>(values.size());
    const double scale = count / total;
    return squares / (count - 1) / count * scale * scale;
}

constexpr i64 kScores = 3 + static_cast<i64>(kUnitLosses);  // of a sequence: error, weight, UnitScores

}  // namespace

double ShardScores::mean_loss() const {
    return mean_of(loss, weight);
}
double ShardScores::mean_error() const {
    return mean_of(error, weight);
}

ShardScores evaluate_shard(RankRuntime& runtime, const WindowSource& source, const ShardOptions& shard) {
    const Communicator& world = runtime.mesh->world();
    const i64 seq_len = shard.seq_len, micro_sequences = shard.micro_sequences;
    const MicroBatches batches{shard.sequences, micro_sequences, world.size()};
    BatchWindows windows(*runtime.backend, micro_sequences, seq_len, shard.document_mask);
    StepContext context = runtime.context(Phase::evaluate, 0);
    context.observer = shard.observer;
    const i64 record = batches.micro_steps() * micro_sequences * kScores;
    std::vector<double> mine(static_cast<std::size_t>(record), 0.0);
    for (i64 i = 0; i < batches.micro_steps(); ++i) {
        const MicroBatches::Part part = batches.part(i, world.rank());
        source(part.first, part.count, windows.host());
        const Batch batch = windows.load(part.count, part.first);
        ModelSaved unused;
        const ForwardResult result = runtime.model.forward(context, batch, unused);
        runtime.compute->synchronize();
        double* scores = mine.data() + i * micro_sequences * kScores;
        for (i64 s = 0; s < part.count; ++s, scores += kScores) {
            const double* const losses = result.token_loss.as<double>() + s * seq_len;
            const i32* const mistakes = result.token_wrong.as<i32>() + s * seq_len;
            const i64 wrong = std::accumulate(mistakes, mistakes + seq_len, i64{0});
            const auto targets = static_cast<double>(windows.targets(s));
            if (targets == 0) continue;  // every token of the window is a document
            const double* const margins = result.token_margin.as<double>() + s * seq_len;
            const auto length = static_cast<std::size_t>(seq_len);
            const UnitScores unit = score_unit({losses, length}, {margins, length}, shard.scales);
            scores[0] = static_cast<double>(wrong) / targets;
            scores[1] = targets / static_cast<double>(seq_len);
            scores[2] = unit.targets;
            std::copy(unit.losses.begin(), unit.losses.end(), scores + 3);
        }
    }
    std::vector<double> all(mine.size() * static_cast<std::size_t>(world.size()));
    runtime.mesh->world().all_gather(*runtime.exchange, view_of(mine.data(), {record}),
                                     view_of(all.data(), {record * world.size()}),
                                     {"scores of the evaluation"});
    runtime.exchange->synchronize();
    ShardScores scores;
    for (i64 i = 0; i < batches.micro_steps(); ++i) {
        for (int rank = 0; rank < world.size(); ++rank) {
            const double* part = all.data() + rank * record + i * micro_sequences * kScores;
            for (i64 s = 0; s < batches.part(i, rank).count; ++s, part += kScores) {
                scores.error.push_back(part[0]);
                scores.weight.push_back(part[1]);
                UnitScores& unit = scores.units.emplace_back();
                unit.targets = part[2];
                std::copy_n(part + 3, kUnitLosses, unit.losses.begin());
                scores.loss.push_back(unit.of(UnitLoss::raw));
            }
        }
    }
    return scores;
}

LossScales loss_scales(const GeneralizationConfig& config, i64 answers) {
    const auto count = static_cast<double>(std::max<i64>(answers, 2));
    return {count, config.smoothing, config.margin, config.clip.value_or(2 * std::log(count))};
}

ShardScores evaluate_windows(RankRuntime& runtime, const RunSetup& run, const std::vector<i64>& windows,
                             bool heldout, RoutingObserver* observer) {
    const Dataset& dataset = *run.dataset;
    const WindowSource source = [&](i64 first, i64 count, WindowBuffer out) {
        for (i64 i = 0; i < count; ++i) {
            const i64 window = windows[static_cast<std::size_t>(first + i)];
            heldout ? dataset.validation_window(window, out) : dataset.training_window(window, out);
            out.tokens += dataset.seq_len() + 1;
            if (out.documents != nullptr) out.documents += dataset.seq_len() + 1;
        }
    };
    return evaluate_shard(runtime, source,
                          {static_cast<i64>(windows.size()), dataset.seq_len(),
                           run.config.train.micro_sequences, run.config.task.data.document_mask, observer,
                           loss_scales(run.config.generalization, run.spec.vocabulary)});
}

std::vector<DomainScore> scores_by_domain(const Dataset& dataset, const std::vector<i64>& windows,
                                          const ShardScores& heldout) {
    std::vector<ShardScores> parts(dataset.domains().size());
    for (std::size_t i = 0; i < windows.size() && !parts.empty(); ++i) {
        ShardScores& part = parts[dataset.domain_of_validation(windows[i])];
        part.loss.push_back(heldout.loss[i]);
        part.error.push_back(heldout.error[i]);
        part.weight.push_back(heldout.weight[i]);
    }
    std::vector<DomainScore> scores;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        if (parts[i].loss.empty()) continue;
        scores.push_back({dataset.domains()[i], parts[i].mean_loss(), parts[i].mean_error(),
                          static_cast<i64>(parts[i].loss.size())});
    }
    return scores;
}

GapEstimate estimate_gap(const ShardScores& heldout, const ShardScores& train, double delta) {
    const double gap = heldout.mean_loss() - train.mean_loss();
    const double half = two_sided_quantile(delta) * std::sqrt(variance_of_mean(heldout.loss, heldout.weight) +
                                                              variance_of_mean(train.loss, train.weight));
    return {gap, gap - half, gap + half};
}

}  // namespace moesaic
