// The data of `bench layer`: functions of names and global indices, so that every rank and the oracle agree.
#pragma once

#include <vector>

#include "launch/bench/bench_options.h"
#include "layers/model_spec.h"

namespace moesaic {

/// One MoE layer and the tokens of every rank. The router's matrix is the identity on the first E columns of
/// x, where each token's choices stand out: so the traffic is as asked, and known.
class LayerProblem {
  public:
    LayerProblem(const LayerOptions& options, int ranks);

    [[nodiscard]] const ModelSpec& spec() const { return spec_; }
    [[nodiscard]] i64 tokens_of_rank() const { return tokens_; }
    [[nodiscard]] i64 all_tokens() const { return tokens_ * ranks_; }
    /// The experts of a token [K], best first; tokens count over all ranks.
    [[nodiscard]] const i32* choices_of(i64 token) const { return choices_.data() + token * spec_.top_k; }
    /// Column `column` of a token's input and of the gradient of its result.
    [[nodiscard]] double x(i64 token, i64 column) const;
    [[nodiscard]] double dy(i64 token, i64 column) const;
    [[nodiscard]] double router_weight(i64 expert, i64 column) const { return expert == column ? 1.0 : 0.0; }

  private:
    ModelSpec spec_;
    i64 tokens_;
    int ranks_;
    Philox x_, dy_;
    std::vector<i32> choices_;
};

/// Initial values of a projection by its name ("model.layers.0.mlp.experts.3.up_proj.weight"), as the
/// parameter store sets them, rounded to `dtype`.
[[nodiscard]] std::vector<double> initial_values(const LayerProblem& problem, const std::string& name,
                                                 DType dtype);
inline constexpr u64 kBenchSeed = 7;

}  // namespace moesaic
