#include "launch/evaluation.h"

#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "launch/batch_windows.h"
#include "launch/micro_batches.h"

namespace moesaic {

namespace {

double mean_of(const std::vector<double>& values) {
    return values.empty()
               ? 0.0
               : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double variance_of_mean(const std::vector<double>& values) {
    if (values.size() < 2) return std::numeric_limits<double>::infinity();
    const double mean = mean_of(values);
    double squares = 0;
    for (const double value : values) squares += (value - mean) * (value - mean);
    const auto count = static_cast<double>(values.size());
    return squares / (count - 1) / count;
}

/// z with P(|N(0,1)| > z) = delta, by bisection on the complementary error function.
double two_sided_quantile(double delta) {
    double low = 0, high = 40;
    for (int i = 0; i < 200; ++i) {
        const double middle = 0.5 * (low + high);
        (std::erfc(middle / std::numbers::sqrt2) > delta ? low : high) = middle;
    }
    return 0.5 * (low + high);
}

}  // namespace

double ShardScores::mean_loss() const {
    return mean_of(loss);
}
double ShardScores::mean_error() const {
    return mean_of(error);
}

ShardScores evaluate_shard(RankRuntime& runtime, const WindowSource& source, i64 sequences, i64 seq_len,
                           i64 micro_sequences) {
    const Communicator& world = runtime.mesh->world();
    const MicroBatches batches{sequences, micro_sequences, world.size()};
    BatchWindows windows(*runtime.backend, micro_sequences, seq_len);
    StepContext context = runtime.context(Phase::evaluate, 0);
    const i64 record = batches.micro_steps() * micro_sequences * 2;
    std::vector<double> mine(static_cast<std::size_t>(record), 0.0);
    for (i64 i = 0; i < batches.micro_steps(); ++i) {
        const MicroBatches::Part part = batches.part(i, world.rank());
        source(part.first, part.count, windows.host());
        const Batch batch = windows.load(part.count);
        ModelSaved unused;
        const ForwardResult result = runtime.model.forward(context, batch, unused);
        runtime.compute->synchronize();
        double* const scores = mine.data() + i * micro_sequences * 2;
        for (i64 s = 0; s < part.count; ++s) {
            const double* const losses = result.token_loss.as<double>() + s * seq_len;
            const i32* const mistakes = result.token_wrong.as<i32>() + s * seq_len;
            const i64 wrong = std::accumulate(mistakes, mistakes + seq_len, i64{0});
            scores[2 * s] = std::accumulate(losses, losses + seq_len, 0.0) / static_cast<double>(seq_len);
            scores[2 * s + 1] = static_cast<double>(wrong) / static_cast<double>(seq_len);
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
            const double* const part = all.data() + rank * record + i * micro_sequences * 2;
            for (i64 s = 0; s < batches.part(i, rank).count; ++s) {
                scores.loss.push_back(part[2 * s]);
                scores.error.push_back(part[2 * s + 1]);
            }
        }
    }
    return scores;
}

ShardScores evaluate_windows(RankRuntime& runtime, const RunSetup& run, const std::vector<i64>& windows,
                             bool heldout) {
    const Dataset& dataset = *run.dataset;
    const WindowSource source = [&](i64 first, i64 count, i32* out) {
        for (i64 i = 0; i < count; ++i, out += dataset.seq_len() + 1) {
            const i64 window = windows[static_cast<std::size_t>(first + i)];
            heldout ? dataset.validation_window(window, out) : dataset.training_window(window, out);
        }
    };
    return evaluate_shard(runtime, source, static_cast<i64>(windows.size()), dataset.seq_len(),
                          run.config.train.micro_sequences);
}

GapEstimate estimate_gap(const std::vector<double>& heldout, const std::vector<double>& train, double delta) {
    const double gap = mean_of(heldout) - mean_of(train);
    const double half =
        two_sided_quantile(delta) * std::sqrt(variance_of_mean(heldout) + variance_of_mean(train));
    return {gap, gap - half, gap + half};
}

}  // namespace moesaic
