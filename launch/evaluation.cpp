#include "launch/evaluation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

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

constexpr i64 kUnitNumbers = 1 + static_cast<i64>(kUnitLosses);  // of UnitScores
// Of a sequence: loss, error, weight, share of wrong targets, UnitScores. Behind them UnitScores of its
// documents' pieces.
constexpr i64 kScores = 4 + kUnitNumbers;

i64 numbers_of_sequence(const ShardOptions& shard) {
    const i64 pieces = shard.documents == nullptr ? 0 : static_cast<i64>(shard.documents->most_pieces());
    return kScores + pieces * kUnitNumbers;
}

void write_unit(const UnitScores& unit, double* numbers) {
    *numbers++ = unit.targets;
    std::copy(unit.losses.begin(), unit.losses.end(), numbers);
}

UnitScores read_unit(const double* numbers) {
    UnitScores unit;
    unit.targets = *numbers++;
    std::copy_n(numbers, kUnitLosses, unit.losses.begin());
    return unit;
}

}  // namespace

double ShardScores::mean_loss() const {
    return mean_of(loss, weight);
}
double ShardScores::mean_share_wrong() const {
    return mean_of(share_wrong, weight);
}
double ShardScores::mean_error() const {
    if (measure != SampleError::distance) return mean_of(error, weight);
    std::vector<double> squares(error);
    for (double& one : squares) one *= one;
    return std::sqrt(mean_of(squares, weight));
}

namespace {

/// The scores of sample `sequence` of a micro-batch, the shard's at `place`.
void score(const ShardOptions& shard, const ForwardResult& result, i64 sequence, std::size_t place,
           i64 seq_len, double targets, i64 most_targets, double* scores, MarginHistogram& histogram) {
    if (targets == 0) return;  // every token of the window is a document
    const double* const losses = result.token_loss.as<double>() + sequence * seq_len;
    scores[0] = std::accumulate(losses, losses + seq_len, 0.0) / targets;
    scores[2] = targets / static_cast<double>(most_targets);
    scores[4] = targets;
    if (shard.measure == SampleError::distance) {
        scores[1] = std::sqrt(scores[0]) * shard.distance_unit;
        scores[5 + static_cast<i64>(UnitLoss::raw)] = scores[0];
        return;
    }
    const double* const margins = result.token_margin.as<double>() + sequence * seq_len;
    const auto length = static_cast<std::size_t>(seq_len);
    histogram.add({margins, length});
    write_unit(score_unit({losses, length}, {margins, length}, shard.scales), scores + 4);
    const i32* const mistakes = result.token_wrong.as<i32>() + sequence * seq_len;
    const i64 wrong = std::accumulate(mistakes, mistakes + seq_len, i64{0});
    scores[3] = static_cast<double>(wrong) / targets;
    scores[1] = shard.measure != SampleError::any_wrong ? scores[3] : wrong > 0 ? 1.0 : 0.0;
    if (shard.documents == nullptr) return;
    double* numbers = scores + kScores;
    for (const DocumentUnits::Piece& piece : shard.documents->windows[place]) {
        const auto first = static_cast<std::size_t>(piece.targets.first),
                   count = static_cast<std::size_t>(piece.targets.count);
        write_unit(score_unit({losses + first, count}, {margins + first, count}, shard.scales), numbers);
        numbers += kUnitNumbers;
    }
}

/// Collective over the world. All samples' scores in their order, from what each rank found; `batches` tells
/// which ranks computed which samples, or, where it knows of one rank alone, that single samples are one
/// rank's each.
ShardScores gather_scores(RankRuntime& runtime, const MicroBatches& batches, std::vector<double>& mine,
                          MarginHistogram& margins, const ShardOptions& shard) {
    Communicator& world = runtime.mesh->world();
    const auto record = static_cast<i64>(mine.size());
    std::vector<double> all = mine;
    if (batches.world == world.size()) {
        all.resize(mine.size() * static_cast<std::size_t>(world.size()));
        world.all_gather(*runtime.exchange, view_of(mine.data(), {record}),
                         view_of(all.data(), {record * world.size()}), {"scores of the evaluation"});
    } else {
        // All others are zeros: exact.
        world.all_reduce(*runtime.exchange, view_of(all.data(), {record}), ReduceOp::sum,
                         {"scores of the evaluation"});
    }
    world.all_reduce(*runtime.exchange, view_of(margins.counts().data(), {MarginHistogram::kBins}),
                     ReduceOp::sum, {"margins of the evaluation"});
    runtime.exchange->synchronize();
    ShardScores scores;
    scores.measure = shard.measure;
    scores.margins = margins;
    scores.by_document = shard.documents != nullptr;
    if (scores.by_document) scores.units.resize(shard.documents->documents.size());
    const i64 stride = numbers_of_sequence(shard);
    for (i64 i = 0; i < batches.micro_steps(); ++i) {
        for (i64 rank = 0; rank < batches.world; ++rank) {
            const double* part = all.data() + rank * record + i * batches.size * stride;
            for (i64 s = 0; s < batches.part(i, rank).count; ++s, part += stride) {
                const std::size_t place = scores.loss.size();
                scores.loss.push_back(part[0]);
                scores.error.push_back(part[1]);
                scores.weight.push_back(part[2]);
                scores.share_wrong.push_back(part[3]);
                if (!scores.by_document) {
                    scores.units.push_back(read_unit(part + 4));
                    continue;
                }
                const double* numbers = part + kScores;
                for (const DocumentUnits::Piece& piece : shard.documents->windows[place]) {
                    add_piece(read_unit(numbers), scores.units[piece.unit]);
                    numbers += kUnitNumbers;
                }
            }
        }
    }
    if (scores.by_document) divide_by_targets(scores.units);
    return scores;
}

}  // namespace

ShardScores evaluate_shard(RankRuntime& runtime, const WindowSource& source, const ShardOptions& shard) {
    const Communicator& world = runtime.mesh->world();
    const ModelSpec& spec = runtime.model.spec();
    const i64 micro_sequences = shard.micro_sequences;
    // Every rank of a MoMLP goes through all samples and scores those whose experts it has.
    const bool by_cells = spec.kind == ModelKind::momlp;
    const MicroBatches batches{shard.sequences, micro_sequences, by_cells ? 1 : world.size()};
    const int rank_of_batch = by_cells ? 0 : world.rank();
    BatchWindows windows(*runtime.backend, *runtime.mesh, spec, runtime.store.dtype(), micro_sequences,
                         shard.document_mask);
    StepContext context = runtime.context(Phase::evaluate, 0);
    context.observer = shard.observer;
    const i64 stride = numbers_of_sequence(shard), record = batches.micro_steps() * micro_sequences * stride;
    std::vector<double> mine(static_cast<std::size_t>(record), 0.0);
    MarginHistogram margins;
    for (i64 i = 0; i < batches.micro_steps(); ++i) {
        const MicroBatches::Part part = batches.part(i, rank_of_batch);
        source(part.first, part.count, windows.host());
        const Batch batch = windows.load(part.count, part.first);
        ModelSaved saved;
        const ForwardResult result = runtime.model.forward(context, batch, saved);
        runtime.compute->synchronize();
        if (shard.visitor) shard.visitor(part, windows, result, saved.normed);
        double* scores = mine.data() + i * micro_sequences * stride;
        for (i64 s = 0; s < part.count; ++s, scores += stride) {
            if (!windows.is_here(s)) continue;
            score(shard, result, s, static_cast<std::size_t>(part.first + s), spec.seq_len,
                  static_cast<double>(windows.targets(s)), spec.targets_per_sequence(), scores, margins);
        }
    }
    return gather_scores(runtime, batches, mine, margins, shard);
}

std::string why_training_forward_differs(const ModelSpec& spec) {
    if (spec.loss == LossKind::squared_error) return "the squared error has no bound";
    if (spec.kind == ModelKind::momlp) return "a sample's loss is known to the rank of its cell alone";
    if (spec.experts == 0) return "";
    if (spec.capacity) return "a capacity drops choices: a sequence's loss depends on the rest of its batch";
    if (spec.router.kind == "noisy_top_k") return "the router adds noise while training";
    if (spec.router.jitter > 0) return "the router's input is jittered while training";
    if (spec.router.kind == "sinkhorn") return "the router plans while training and does not in evaluation";
    if (spec.router.kind == "replay") return "the routing is replayed from a file";
    return "";
}

LossScales loss_scales(const RunSetup& run) {
    const GeneralizationConfig& config = run.config.generalization;
    const auto answers = static_cast<double>(std::max<i64>(run.spec.head_outputs(), 2));
    return {answers, config.smoothing, config.margin, config.clip.value_or(2 * std::log(answers)),
            run.dataset->error() == SampleError::any_wrong};
}

ShardScores evaluate_windows(RankRuntime& runtime, const RunSetup& run, const std::vector<i64>& windows,
                             bool heldout, RoutingObserver* observer, const DocumentUnits* documents,
                             const FeatureVisitor& visitor) {
    const TaskData& data = *run.dataset;
    const SampleShape shape = data.shape();
    const WindowSource source = [&](i64 first, i64 count, WindowBuffer out) {
        for (i64 i = 0; i < count; ++i) {
            const i64 window = windows[static_cast<std::size_t>(first + i)];
            const WindowBuffer sample = out.from(i, shape);
            heldout ? data.validation_window(window, sample) : data.training_window(window, sample);
        }
    };
    return evaluate_shard(runtime, source,
                          {static_cast<i64>(windows.size()), run.config.train.micro_sequences,
                           run.config.task.data.document_mask, observer, data.error(), data.distance_unit(),
                           loss_scales(run), documents, visitor});
}

std::vector<DomainScore> scores_by_domain(const TaskData& data, const std::vector<i64>& windows,
                                          const ShardScores& heldout) {
    std::vector<ShardScores> parts(data.domains().size());
    for (ShardScores& part : parts) part.measure = heldout.measure;
    for (std::size_t i = 0; i < windows.size() && !parts.empty(); ++i) {
        ShardScores& part = parts[data.domain_of_validation(windows[i])];
        part.loss.push_back(heldout.loss[i]);
        part.error.push_back(heldout.error[i]);
        part.weight.push_back(heldout.weight[i]);
    }
    std::vector<DomainScore> scores;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        if (parts[i].loss.empty()) continue;
        scores.push_back({data.domains()[i], parts[i].mean_loss(), parts[i].mean_error(),
                          static_cast<i64>(parts[i].loss.size())});
    }
    return scores;
}

namespace {

double variance_of_mean_loss(const ShardScores& scores) {
    if (!scores.by_document) return variance_of_mean(scores.loss, scores.weight);
    std::vector<double> losses, targets;
    for (const UnitScores& unit : scores.units) {
        losses.push_back(unit.of(UnitLoss::raw));
        targets.push_back(unit.targets);
    }
    return variance_of_mean(losses, targets);
}

}  // namespace

GapEstimate estimate_gap(const ShardScores& heldout, const ShardScores& train, double delta) {
    const double gap = heldout.mean_loss() - train.mean_loss();
    const double half =
        two_sided_quantile(delta) * std::sqrt(variance_of_mean_loss(heldout) + variance_of_mean_loss(train));
    return {gap, gap - half, gap + half};
}

}  // namespace moesaic
