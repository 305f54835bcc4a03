// What bounds ask of a trained model: norms of its experts and how its routers weigh, without counting twice.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "comm/routing.h"
#include "launch/rank_runtime.h"
#include "runtime/metrics/bounds/bound_inputs.h"
#include "runtime/metrics/matrix_norms.h"

namespace moesaic {

/// Sums over the tokens of an evaluation what routers of each layer decided, and lets another observer see
/// it.
class RoutingMeasure final : public RoutingObserver {
  public:
    RoutingMeasure(RankRuntime& runtime, RoutingObserver* next);
    void routed(StepContext& context, int layer, const Routing& routing) override;

    struct Layer {
        double tokens = 0, squared_weights = 0;
        std::vector<double> load;  ///< by expert
        /// tokens / sum of squared weights: the number of experts that a token's result is an average of.
        [[nodiscard]] double k_eff() const;
        /// exp of the load's entropy.
        [[nodiscard]] double effective_experts() const;
    };
    /// Collective over the world. By layer with experts.
    [[nodiscard]] std::vector<Layer> finish();

  private:
    RankRuntime& runtime_;
    RoutingObserver* next_;
    std::vector<int> layers_;
    std::vector<Layer> sums_;
};

/// One expert's matrices: up, down, and the gate where its activation has one.
struct ExpertNorms {
    std::vector<MatrixNorms> matrices;
    /// Rademacher factor B of its class: product of Frobenius norms for one matrix after the other; for
    /// swiglu 4.21 X max_r |g_r| sum_r |v_r| |u_r|, X the radius of its inputs (README of
    /// runtime/metrics/bounds).
    double factor = 0;
};
struct LayerNormsOfExperts {
    double radius = 0;  ///< no input of the layer has a larger norm: sqrt(H) times the norm's largest weight
    std::vector<ExpertNorms> experts;
    [[nodiscard]] const ExpertNorms& largest() const;
    [[nodiscard]] double stacked_factor() const;  ///< sqrt(sum of squares)
};
/// Collective over the world. By layer with experts; each expert by one of the ranks that own it.
[[nodiscard]] std::vector<LayerNormsOfExperts> measure_experts(RankRuntime& runtime);

/// The numbers as a record holds them, by layer with experts.
[[nodiscard]] std::map<std::string, std::vector<double>> measures_by_name(
    const std::vector<RoutingMeasure::Layer>& routing, const std::vector<LayerNormsOfExperts>& norms);

/// What a model was trained on: independent units, and the rows that routers saw of all of them.
struct TrainedUnits {
    double units = 0, rows = 0;
};
/// Inputs of the bounds of a gap for the model's largest layer, about the ramp loss of `margin`.
[[nodiscard]] BoundInputs gap_bound_inputs(const ModelSpec& spec,
                                           const std::vector<LayerNormsOfExperts>& norms,
                                           const TrainedUnits& trained, double margin, double delta);

}  // namespace moesaic
