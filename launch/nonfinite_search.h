// Where a loss or gradient that is not finite comes from: the first layer, expert and rank.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>

#include "comm/gradient_sync.h"
#include "layers/model.h"

namespace moesaic {

enum class NonfiniteStage : std::uint8_t { weights, forward, gradient, none };

/// The same on every rank.
struct NonfiniteOrigin {
    NonfiniteStage stage = NonfiniteStage::none;
    int rank = -1;  ///< the lowest that has it
    std::optional<i64> layer, expert;
    std::string what;  ///< a tensor, or a part of a layer
    /// Of train.determinism: elastic: a micro-batch's gradient was finite, but beyond this, the most that its
    /// exact sums take.
    std::optional<double> limit;

    /// "first in the gradient of model.layers.1.mlp.experts.3.up_proj.weight (layer 1, expert 3) on rank 1".
    [[nodiscard]] std::string text() const;
};

/// Costs nothing while all is finite. What each rank has seen of its own is brought together: weights that
/// are not finite come first, then activations in the order of the forward, then gradients in that of the
/// backward.
class NonfiniteSearch {
  public:
    void begin() { forward_.reset(); }
    /// After a forward, on this rank alone: where its activations stop being finite, if its `losses` are not.
    void look_at_forward(StepContext& context, const ModelSpec& spec, const ModelSaved& saved,
                         std::span<const double> losses, i64 micro_step);
    /// Collective over mesh.world(), after GradientSync::finish and before the update. `limit`: of one
    /// micro-batch where sums are exact (FoldRounding), else none.
    [[nodiscard]] NonfiniteOrigin find(StepContext& context, ParameterStore& store, const GradientSync& sync,
                                       std::optional<double> limit) const;

  private:
    /// Flat, as ranks send it to each other.
    struct Finding {
        i64 stage = static_cast<i64>(NonfiniteStage::none);
        i64 order = 0;      // lower comes first
        i64 uncertain = 0;  // it may be another rank's, added to this one's
        i64 infinite = 0;   // and nothing is NaN
        i64 layer = -1, expert = -1;
        std::array<char, 120> what{};
    };
    static Finding finding_of(NonfiniteStage stage, i64 order, const Parameter& parameter);
    static void set_what(Finding& finding, const std::string& what);
    static std::optional<Finding> in_weights(StepContext& context, const ParameterStore& store);
    static void look_at_gradients(StepContext& context, ParameterStore& store, const GradientBucket& bucket,
                                  Finding& certain, Finding& uncertain);

    std::optional<Finding> forward_;
};

}  // namespace moesaic
