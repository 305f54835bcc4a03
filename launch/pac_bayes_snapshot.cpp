#include "launch/pac_bayes_snapshot.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numbers>

#include "launch/evaluation.h"
#include "launch/generalization.h"
#include "launch/training_history.h"
#include "runtime/base/philox.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/data/first_share.h"
#include "runtime/metrics/certificates.h"

namespace moesaic {

namespace {

constexpr double kLeastUnit = 0.01;  // tensors that begin at zero have no size of their own
constexpr double kMostOfEpoch = 0.7;
constexpr i64 kRowsOfDraw = 2048, kMostUnitsOfDraw = 64, kFewestUnitsOfDraw = 8;

std::vector<float> values_of(RankRuntime& runtime, const Parameter& parameter) {
    std::vector<float> values(static_cast<std::size_t>(parameter.shape.elements()));
    runtime.backend->copy(*runtime.compute, parameter.value, view_of(values.data(), parameter.value.shape));
    return values;
}

/// Adds scale times standard normal numbers of the draw to `values`: two from each pair of random words.
void add_noise(const Philox& random, i64 draw, double scale, std::vector<float>& values) {
    const auto low = static_cast<u32>(draw), high = static_cast<u32>(static_cast<u64>(draw) >> 32);
    for (std::size_t i = 0; i < values.size(); i += 4) {
        const auto block = static_cast<u64>(i / 4);
        const auto words = random.block({static_cast<u32>(block), static_cast<u32>(block >> 32), low, high});
        for (std::size_t pair = 0; pair < 2; ++pair) {
            const double u = (static_cast<double>(words[2 * pair]) + 1.0) * 0x1p-32;
            const double angle = 2.0 * std::numbers::pi * static_cast<double>(words[2 * pair + 1]) * 0x1p-32;
            const double radius = scale * std::sqrt(-2.0 * std::log(u));
            const std::size_t at = i + 2 * pair;
            if (at < values.size()) values[at] += static_cast<float>(radius * std::cos(angle));
            if (at + 1 < values.size()) values[at + 1] += static_cast<float>(radius * std::sin(angle));
        }
    }
}

/// Whether this rank is the one that counts the parameter.
bool counts(const RankRuntime& runtime, const Parameter& parameter) {
    if (parameter.placement == Placement::expert) return runtime.mesh->replicas().rank() == 0;
    return runtime.mesh->world().rank() == 0;
}

/// A unit and the training window that it is scored in; of a sequence no targets are named.
struct SnapshotUnit {
    i64 window = 0;
    TargetRange targets;
};

/// Units that the prior's weights had met, and those of the first epoch that they had not.
struct SnapshotUnits {
    std::vector<SnapshotUnit> met, certifying;
    [[nodiscard]] const std::vector<SnapshotUnit>& of(SnapshotPart part) const {
        return part == SnapshotPart::certifying ? certifying : met;
    }
};

/// `met`: the prior's weights may have met the first so many of the first epoch.
SnapshotUnits units_of(const RunSetup& run, i64 prior_step, i64 met) {
    const auto seed = static_cast<u64>(run.config.run.seed);
    const i64 epoch = run.dataset->first_epoch_sequences(seed);
    if (met >= epoch)
        throw UserError(
            fmt::format("the prior of step {} has met all {} sequences of the training data: none is left to "
                        "certify with; "
                        "give --prior a checkpoint of step {} or earlier, train with "
                        "train.checkpoint_every below that, or train a prior on task.data.training_share",
                        prior_step, epoch, (epoch - 1) / run.config.train.batch_sequences));
    SnapshotUnits units;
    for (i64 number = 0; number < epoch; ++number) {
        std::vector<SnapshotUnit>& part = number < met ? units.met : units.certifying;
        const i64 window = run.dataset->training_sequence(seed, number);
        if (!run.unit.documents) {
            part.push_back({window, {}});
            continue;
        }
        // Where training meets a document first it counts, once: a certifying one is all new to the prior.
        for (const WindowDocument& document : run.dataset->documents_first_met(seed, number))
            part.push_back({window, {document.first_target, document.targets}});
    }
    if (units.certifying.empty())
        throw UserError(fmt::format(
            "no document begins in the {} training sequences that the prior of step {} has not met; give "
            "--prior an earlier checkpoint, or train with generalization.unit: sequence",
            epoch - met, prior_step));
    return units;
}

void expect_bounded(const RunSetup& run) {
    if (run.spec.loss == LossKind::squared_error)
        throw UserError(
            "moesaic bound --pac-bayes: the squared error has no bound; classification, sraven, "
            "skills and language models have losses that PAC-Bayes speaks of");
    if (run.spec.kind == ModelKind::momlp)
        throw UserError(
            "moesaic bound --pac-bayes: a MoMLP's cells are made of all training data, the "
            "certifying ones included; an mlp or a transformer has a prior without them");
}

/// What Generalization::observers() stores from the seed on; empty where the checkpoint has none of it.
std::vector<double> stream_of(const TrainingPosition& position) {
    const auto found = position.observers.find("generalization");
    return found == position.observers.end() || found->second.size() < 6
               ? std::vector<double>{}
               : std::vector<double>(found->second.begin() + 2, found->second.end());
}

/// Of checkpoints of earlier versions, from sizes and the seed: whether the prior's stream is that of the run
/// or the beginning of it (task.data.training_share).
bool looks_like_one_stream(const RunSetup& run, const TrainingPosition& prior,
                           const TrainingPosition& trained, double prior_share) {
    const std::vector<double> before = stream_of(prior), after = stream_of(trained);
    const auto epoch = run.dataset->first_epoch_sequences(static_cast<u64>(run.config.run.seed));
    const auto kept = [&](i64 samples) {
        return static_cast<double>(FirstShare::size_of(prior_share, samples));
    };
    const bool known = !before.empty() && !after.empty();
    return known ? before[0] == after[0] && before[1] == after[1] && before[2] == kept(epoch) &&
                       before[3] == kept(run.dataset->training_windows())
                 : before == after;
}

/// The certifying units are new to the prior's weights if all legs of their training met these data in this
/// order; the trained weights may have met anything, but others are no run that the user could mean.
void expect_same_stream(const RunSetup& run, const TrainingPosition& prior, const std::string& prior_folder,
                        const TrainingPosition& trained, const std::string& trained_folder) {
    const auto before = trained_on(prior.observers), after = trained_on(trained.observers);
    const double share = share_of_training(prior_folder);
    const auto is_of_run = [&](const TrainedOn& history, double of) {
        return history.one_order && (history.met == 0 || history.order == order_with_share(run, of));
    };
    const bool same = before && after
                          ? is_of_run(*before, share) && is_of_run(*after, share_of_training(trained_folder))
                          : looks_like_one_stream(run, prior, trained, share);
    if (!same)
        throw UserError(
            "moesaic bound --pac-bayes: the prior was trained with other data, another split, another seed "
            "or other batches than the trained weights, or one of them was resumed with such, so that "
            "nothing is known to be new to the prior; give --prior a checkpoint of the same run, or of one "
            "that differs by task.data.training_share");
}

/// Whether all that the weights were trained on is on record.
bool is_recorded(const TrainingPosition& position) {
    const auto history = trained_on(position.observers);
    return history && history->recorded;
}

/// Whether the weights that the run began with had met data.
bool is_imported(const TrainingPosition& position) {
    const auto found = position.observers.find("generalization");
    return found == position.observers.end() || found->second.size() < 2 || found->second[1] != 0;
}

/// SnapshotLosses on the product's own path: evaluations of handfuls of units, each in its window.
class MeasuredLosses {
  public:
    MeasuredLosses(RankRuntime& runtime, const RunSetup& run, NoisyWeights& weights, SnapshotUnits units)
        : runtime_(runtime),
          run_(run),
          weights_(weights),
          units_(std::move(units)),
          scales_(loss_scales(run)),
          handful_(std::clamp(kRowsOfDraw / run.spec.seq_len, kFewestUnitsOfDraw, kMostUnitsOfDraw)),
          random_(static_cast<u64>(run.config.run.seed), "units of PAC-Bayes draws") {}

    std::vector<DrawnLosses> operator()(const SnapshotPosterior& posterior, SnapshotPart part, i64 draws) {
        const std::vector<SnapshotUnit>& units = units_.of(part);
        std::vector<DrawnLosses> losses(kCertifiedLosses);
        for (i64 draw = 0; draw < draws; ++draw, ++drawn_) {
            std::vector<i64> handful;
            DocumentUnits documents;
            for (i64 i = 0; i < handful_; ++i) {
                const double place = random_.uniform(static_cast<u64>(drawn_ * handful_ + i)) *
                                     static_cast<double>(units.size());
                const SnapshotUnit& unit = units[std::min(static_cast<std::size_t>(place), units.size() - 1)];
                handful.push_back(unit.window);
                documents.windows.push_back({{static_cast<std::size_t>(i), unit.targets}});
                documents.documents.emplace_back();
            }
            weights_.draw(posterior, drawn_);
            const ShardScores scores = evaluate_windows(runtime_, run_, handful, false, nullptr,
                                                        run_.unit.documents ? &documents : nullptr);
            for (std::size_t i = 0; i < losses.size(); ++i)
                losses[i].add(losses_of(scores, certified_losses()[i]));
        }
        return losses;
    }

  private:
    [[nodiscard]] std::vector<double> losses_of(const ShardScores& scores,
                                                const CertifiedLoss& certified) const {
        std::vector<double> losses;
        for (const UnitScores& unit : scores.units) {
            // Without targets it loses nothing; what is no number loses all.
            const double loss =
                unit.targets == 0 ? 0.0 : scales_.to_unit(certified.loss, unit.of(certified.loss));
            losses.push_back(std::isfinite(loss) ? std::clamp(loss, 0.0, 1.0) : 1.0);
        }
        return losses;
    }

    RankRuntime& runtime_;
    const RunSetup& run_;
    NoisyWeights& weights_;
    SnapshotUnits units_;
    LossScales scales_;
    i64 handful_, drawn_ = 0;
    Philox random_;
};

void add_assumptions(const RunSetup& run, const TrainingPosition& weights, SnapshotMeasurement& measurement) {
    const bool known = !is_imported(weights) && is_recorded(weights);
    for (auto& [name, bound] : measurement.certificate.bounds) {
        for (Assumption& assumption : bound.assumptions) {
            const bool prior = assumption.name == "prior_independent";
            const bool lambda = assumption.name == "lambda_fixed";
            const bool model = assumption.name == "randomised_model";
            const bool scaled = run.config.task.kind == "classification" && run.config.task.data.standardize;
            if (model || lambda || (prior && known && !scaled)) assumption.status = AssumptionStatus::holds;
            if (prior && !is_recorded(weights))
                assumption.meaning += "; what it was trained on is not all on record";
            if (prior && scaled)
                assumption.meaning +=
                    "; but features were standardized with all training rows (their values, "
                    "not their classes): task.data.standardize";
        }
    }
}

}  // namespace

NoisyWeights::NoisyWeights(RankRuntime& runtime, const std::string& prior, const std::string& trained,
                           u64 seed)
    : runtime_(runtime), seed_(seed) {
    MOESAIC_ASSERT(runtime.store.dtype() == DType::f32, "weights of type {}", name_of(runtime.store.dtype()));
    trained_ = load_checkpoint(runtime, trained, false);
    for (const Parameter& parameter : runtime.store.parameters()) {
        Values& values = values_.emplace_back();
        values.trained = values_of(runtime, parameter);
    }
    runtime.compute->synchronize();
    prior_ = load_checkpoint(runtime, prior, false);
    std::size_t index = 0;
    for (const Parameter& parameter : runtime.store.parameters()) {
        Values& values = values_[index++];
        values.prior = values_of(runtime, parameter);
        runtime.compute->synchronize();
        double squares = 0, distance = 0;
        for (std::size_t i = 0; i < values.prior.size(); ++i) {
            const double before = values.prior[i], moved = values.trained[i] - before;
            squares += before * before;
            distance += moved * moved;
        }
        values.unit = std::max(kLeastUnit, std::sqrt(squares / static_cast<double>(values.prior.size())));
        MOESAIC_ASSERT(!parameter.frozen || distance == 0, "{} is frozen and has moved", parameter.name);
        if (counts(runtime, parameter)) squared_distance_ += distance / (values.unit * values.unit);
    }
    runtime.mesh->world().all_reduce(*runtime.exchange, view_of(&squared_distance_, {1}), ReduceOp::sum,
                                     {"distance from the prior"});
    runtime.exchange->synchronize();
}

void NoisyWeights::draw(const SnapshotPosterior& posterior, i64 number) {
    std::size_t index = 0;
    for (Parameter& parameter : runtime_.store.parameters()) {
        const Values& values = values_[index++];
        if (parameter.frozen) continue;  // the same in prior and posterior, and not drawn
        drawn_.resize(values.prior.size());
        for (std::size_t i = 0; i < drawn_.size(); ++i) {
            const double before = values.prior[i];
            drawn_[i] = static_cast<float>(before + posterior.share * (values.trained[i] - before));
        }
        add_noise(Philox(seed_, "PAC-Bayes " + parameter.name), number, posterior.scale * values.unit,
                  drawn_);
        runtime_.backend->copy(*runtime_.compute, view_of(drawn_.data(), parameter.value.shape),
                               parameter.value);
        runtime_.compute->synchronize();
    }
}

double share_of_training(const std::string& checkpoint) {
    return checkpoint_config(checkpoint, {}).task.data.training_share;
}

std::string choose_prior(const std::string& trained, const RunSetup& run) {
    const std::filesystem::path run_folder = std::filesystem::path(trained).parent_path().parent_path();
    const i64 trained_step = CheckpointReader(trained, ShardCheck::sizes).manifest().step;
    const auto epoch =
        static_cast<double>(run.dataset->first_epoch_sequences(static_cast<u64>(run.config.run.seed)));
    // A run on a share of its data is certified by the rest: it is its own prior.
    if (share_of_training(trained) < 1) return trained;
    std::string best;
    for (const CheckpointFolder& one : list_checkpoints(run_folder.string())) {
        if (!one.complete) continue;
        const auto met =
            static_cast<double>(met_by(one.step, read_manifest(one.path).observers, run.config.train));
        if (one.step < trained_step && (one.step == 0 || met <= kMostOfEpoch * epoch)) best = one.path;
    }
    if (best.empty())
        throw UserError(
            fmt::format("{}: no earlier checkpoint of the run can be the prior: one within {:g} of the first "
                        "epoch ({:.0f} "
                        "sequences) or of step 0; name one with --prior, or train with "
                        "train.checkpoint_every small enough",
                        trained, kMostOfEpoch, epoch));
    return best;
}

SnapshotMeasurement measure_snapshot(RankRuntime& runtime, const RunSetup& run, const std::string& prior,
                                     const std::string& trained, i64 draws) {
    expect_bounded(run);
    NoisyWeights weights(runtime, prior, trained, static_cast<u64>(run.config.run.seed));
    const TrainingPosition& before = weights.prior();
    expect_same_stream(run, before, prior, weights.trained(), trained);
    SnapshotMeasurement measurement;
    measurement.step = weights.trained().step;
    measurement.prior_step = before.step;
    const i64 epoch = run.dataset->first_epoch_sequences(static_cast<u64>(run.config.run.seed));
    // No sequence beyond its share was ever met.
    SnapshotUnits units = units_of(run, before.step,
                                   std::min(met_by(before.step, before.observers, run.config.train),
                                            FirstShare::size_of(share_of_training(prior), epoch)));
    SnapshotOptions& options = measurement.options;
    options.scales = loss_scales(run);
    options.delta = run.config.generalization.delta;
    options.certifying_units = static_cast<double>(units.certifying.size());
    options.squared_distance = weights.squared_distance();
    options.prior_met_units = !units.met.empty();
    options.exact_errors = options.scales.all_right || run.spec.targets_per_sequence() == 1;
    options.draws = draws;
    options.trial_draws = std::min(options.trial_draws, draws);
    MeasuredLosses losses(runtime, run, weights, std::move(units));
    measurement.certificate = certify_snapshot(options, std::ref(losses));
    add_assumptions(run, before, measurement);
    return measurement;
}

}  // namespace moesaic
