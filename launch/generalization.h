// How well a run's model does on data it has not met: fixed shards, certificates, the gap and its course.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "launch/checkpoint_loading.h"
#include "launch/evaluation.h"
#include "launch/evaluation_shards.h"
#include "launch/head_complexity.h"
#include "launch/training_history.h"
#include "launch/training_step.h"
#include "runtime/metrics/certificates.h"
#include "runtime/metrics/paired_change.h"
#include "runtime/metrics/records.h"

namespace moesaic {

class RoutingMeasure;

/// Collective over the world where the task has samples of another distribution: fills the record's fields.
void record_shifted(RankRuntime& runtime, const RunSetup& run, EvalRecord& record);

/// The same on every rank: fed with numbers of global batches and whole shards alone. The paired history
/// begins anew when a run is resumed; the certificates go on.
class Generalization {
  public:
    Generalization(RankRuntime& runtime, const RunSetup& run);

    /// To be called once before the first step. `imported`: the run begins with another one's weights.
    void begin(const TrainingPosition& position, bool imported);
    /// Training is ahead of its steps by so many batches (StepPolicy::batch_shift), if not as the checkpoint
    /// that it began with says.
    void shift_batches(i64 shift) { history_.shift_batches(shift); }
    /// So many looks were made already, by an attempt that the run went back from: what they spent of delta
    /// stays spent, though their records are cut away.
    void count_looks(i64 made) { looks_ = std::max(looks_, made); }
    [[nodiscard]] i64 looks() const { return looks_; }
    /// For a checkpoint of `step`.
    [[nodiscard]] std::map<std::string, std::vector<double>> observers(i64 step) const;

    /// For TrainingStep::score_units; none where the certificate is off or the step meets a sequence again.
    [[nodiscard]] std::optional<LossScales> scales_of_step(i64 step) const;
    /// What scales_of_step scores; empty where sequences are the units.
    [[nodiscard]] UnitRanges unit_ranges() const;
    /// After the forward and before the update of a step that scales_of_step wanted.
    void add_step(i64 step, const StepResult& result);
    /// From now on there is no certificate from fresh data, for this reason.
    void give_up_fresh_data(const std::string& reason);
    /// As of `step`; about the steps up to detail until_step, which the first epoch ends with.
    [[nodiscard]] std::map<std::string, BoundResult> prequential_bounds(i64 step) const;

    /// Collective over the world. All but routing_changed and the times. `observer`: of the held-out shard,
    /// or of the seen one where nothing is held out.
    [[nodiscard]] EvalRecord evaluate(i64 step, RoutingObserver* observer);
    /// The same for the checkpoint at `position`, as `begin` was told, without counting a look: the run's own
    /// statement where the run looked at these weights and `as_in_run`, the settings that decide about it are
    /// the run's; else one that stands by itself (EvalRecord::look).
    [[nodiscard]] EvalRecord evaluate_again(const TrainingPosition& position, bool as_in_run);
    /// This rank's seconds in add_step, and in evaluations besides the losses of the held-out shard and the
    /// seen one.
    [[nodiscard]] double extra_seconds() const { return extra_seconds_; }
    [[nodiscard]] const EvaluationShards& shards() const { return shards_; }
    /// Of the latest evaluation's held-out shard.
    [[nodiscard]] const std::vector<DomainScore>& domains() const { return domains_; }

  private:
    struct Scores {
        ShardScores heldout, seen, unseen;
    };
    [[nodiscard]] EvalRecord look(i64 step, std::optional<i64> number, RoutingObserver* observer);
    /// Collective over the world. `routing` sees the held-out shard, or the seen one where nothing is held
    /// out.
    [[nodiscard]] Scores score_shards(i64 step, RoutingObserver& routing, HeadComplexity* complexity);
    [[nodiscard]] bool all_fresh(i64 step) const;
    /// Whether the weights were trained on all of the train probe.
    [[nodiscard]] bool has_seen_probe(i64 step) const;
    /// Of weights that have met no data nobody wants a certificate, and each look makes later ones weaker:
    /// step 0 of a run from scratch is none.
    [[nodiscard]] bool certifies(i64 step) const { return step > 0 || imported_; }
    /// What the prequential certificate's state is for: it goes on where these are the same.
    [[nodiscard]] std::vector<double> prequential_of() const;
    /// Why that certificate does not go on from `position`; empty: it does.
    [[nodiscard]] std::string go_on_from(const TrainingPosition& position);
    void record_shard(const std::string& name, const ShardScores& scores, EvalRecord& record) const;
    /// Collective over the world: what was measured of the model, and the bounds that this gives.
    void record_bounds(RoutingMeasure& routing, EvalRecord& record);
    void record_gap(const Scores& scores, EvalRecord& record);
    void record_bounded_gaps(const std::vector<UnitScores>& heldout, const std::vector<UnitScores>& seen,
                             double delta, EvalRecord& record) const;
    /// From the held-out shard, or from units that training will come to.
    void record_certificates(const Scores& scores, EvalRecord& record) const;

    RankRuntime& runtime_;
    const RunSetup& run_;
    EvaluationShards shards_;
    struct Documents {
        DocumentUnits heldout, seen, unseen;
    };
    std::optional<Documents> documents_;  // of the shards, where they are the units
    CertificateOptions options_;
    TrainingHistory history_;
    i64 first_epoch_;
    bool bounded_;     // losses have bounds
    std::string off_;  // why there is no prequential certificate
    bool imported_ = false;
    i64 looks_ = 0;
    std::optional<i64> look_step_;  // of the last one since `begin`
    std::optional<PrequentialCertificate> prequential_;
    LossHistory losses_;
    std::vector<DomainScore> domains_;
    double extra_seconds_ = 0;
};

}  // namespace moesaic
