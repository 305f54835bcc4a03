// The data of `bench dispatch`: small integers, functions of (token, column), on which all arithmetic is
// exact.
#pragma once

#include "comm/exchange/exchange.h"
#include "comm/traffic/traffic.h"

namespace moesaic {

/// One micro-batch of every rank. Expert e multiplies by 1 or 2, weights are powers of two: so
///   y[t] = sum_k w[t,k] s(e) x[t],  dx[t] = sum_k w[t,k] s(e) dy[t],  d_weight[t,k] = s(e) <dy[t], x[t]>,
/// exact in fp32 and fp64 up to a width of 2^18, and in bf16 to its last rounding.
class DispatchProblem {
  public:
    DispatchProblem(const TrafficPattern& traffic, int rank, i64 width);

    [[nodiscard]] i64 tokens() const { return tokens_; }  ///< of this rank
    /// The most tokens that a rank has, and rows that one receives.
    [[nodiscard]] i64 most_tokens() const { return most_tokens_; }
    [[nodiscard]] i64 most_received() const { return most_received_; }
    [[nodiscard]] const RankMatrix& rows() const { return rows_; }

    [[nodiscard]] double x(i64 local_token, i64 column) const {
        return value(first_ + local_token, column, 1);
    }
    [[nodiscard]] double dy(i64 local_token, i64 column) const {
        return value(first_ + local_token, column, 2);
    }
    [[nodiscard]] double weight(i64 local_token, i64 choice) const;
    [[nodiscard]] i32 expert(i64 local_token, i64 choice) const;
    [[nodiscard]] static double scale(i64 expert) { return expert % 2 == 0 ? 1.0 : 2.0; }

    /// Elements of this rank's received rows [R,H], grouped by local expert, that are not the right tokens'
    /// x; `second` for dy times the weight.
    [[nodiscard]] i64 wrong_arrivals(ConstTensorView rows, bool backward) const;
    [[nodiscard]] i64 wrong_results(ConstTensorView y) const;
    [[nodiscard]] i64 wrong_gradients(ConstTensorView dx, ConstTensorView d_weight) const;

  private:
    [[nodiscard]] static double value(i64 token, i64 column, i64 what);
    [[nodiscard]] static double weight_of(i64 token, i64 choice, i64 choices);
    /// Sum of w s over the choices of a token.
    [[nodiscard]] double factor(i64 local_token) const;

    struct Arrival {
        i64 token, choice;  ///< token over all ranks
    };
    PatternShape shape_;
    i64 width_, first_ = 0, tokens_ = 0, most_tokens_ = 0, most_received_ = 0;
    RankMatrix rows_;
    std::vector<i32> experts_;       ///< [T,K] of this rank
    std::vector<Arrival> arrivals_;  ///< by local expert, then source rank and token
};

}  // namespace moesaic
