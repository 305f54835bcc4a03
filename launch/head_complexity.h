// How much the last layer alone could fit, on the features that the rest of the model makes of a shard.
#pragma once

#include <vector>

#include "launch/evaluation.h"
#include "runtime/metrics/sign_sums.h"

namespace moesaic {

/// SignSums::complexity of the head on the first of the training windows (4096 tokens, at least 8 windows),
/// with the norm of its matrix as the cap: the exact part of the model's Rademacher complexity. As features
/// and norm were learnt from these windows it is no bound of the gap, and compares runs. It takes the
/// features from the windows' evaluation, whose forward it need not repeat.
class HeadComplexity {
  public:
    /// Of these windows, in the order in which they are evaluated. They outlive it.
    HeadComplexity(RankRuntime& runtime, const RunSetup& run, const std::vector<i64>& windows);

    /// Of a cross-entropy on what a norm makes of the residual stream.
    [[nodiscard]] static bool applies(const ModelSpec& spec);

    /// As a FeatureVisitor.
    void add(const MicroBatches::Part& part, const BatchWindows& batch, const ForwardResult& result,
             ConstTensorView features);
    /// Collective over the world.
    [[nodiscard]] double finish();

  private:
    RankRuntime& runtime_;
    const ModelSpec& spec_;
    const std::vector<i64>& windows_;
    i64 units_;
    SignSums signs_;
};

}  // namespace moesaic
