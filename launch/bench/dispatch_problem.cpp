#include "launch/bench/dispatch_problem.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "launch/bench/element_access.h"

namespace moesaic {

namespace {

/// Whether an element is what it should be: exactly, or to the last bit that its type has.
bool right(ConstTensorView view, i64 i, double want) {
    const double have = load_element(view, i);
    return view.dtype == DType::bf16 ? std::abs(have - want) <= std::abs(want) / 128 : have == want;
}

}  // namespace

DispatchProblem::DispatchProblem(const TrafficPattern& traffic, int rank, i64 width)
    : shape_(traffic.shape()), width_(width), rows_(count_rows(traffic, 1, 0)) {
    const i64 local_experts = shape_.experts / shape_.ranks, choices = shape_.top_k;
    std::vector<std::vector<Arrival>> by_expert(static_cast<std::size_t>(local_experts));
    for (int source = 0; source < shape_.ranks; ++source) {
        const i64 first = traffic.first_token(source), tokens = traffic.tokens_of_rank(source);
        std::vector<i32> experts(static_cast<std::size_t>(tokens * choices));
        traffic.route(1, 0, first, tokens, experts);
        for (i64 row = 0; row < tokens * choices; ++row) {
            const i64 local = experts[static_cast<std::size_t>(row)] - rank * local_experts;
            if (local < 0 || local >= local_experts) continue;
            by_expert[static_cast<std::size_t>(local)].push_back({first + row / choices, row % choices});
        }
        most_tokens_ = std::max(most_tokens_, tokens);
        most_received_ = std::max(most_received_, rows_.received_by(source));
        if (source != rank) continue;
        first_ = first;
        tokens_ = tokens;
        experts_ = std::move(experts);
    }
    for (const std::vector<Arrival>& rows : by_expert)
        arrivals_.insert(arrivals_.end(), rows.begin(), rows.end());
}

double DispatchProblem::value(i64 token, i64 column, i64 what) {
    u64 mixed = static_cast<u64>(token) * 0x9E3779B97F4A7C15ull + static_cast<u64>(column * 4 + what);
    mixed = (mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9ull;
    return static_cast<double>(static_cast<i64>(mixed >> 61) - 4);  // -4 ... 3
}

double DispatchProblem::weight_of(i64 token, i64 choice, i64 choices) {
    const double most = 1.0 / static_cast<double>(std::bit_ceil(static_cast<u64>(choices)));
    return (token + choice) % 2 == 0 ? most : most / 2;
}

double DispatchProblem::weight(i64 local_token, i64 choice) const {
    return weight_of(first_ + local_token, choice, shape_.top_k);
}

i32 DispatchProblem::expert(i64 local_token, i64 choice) const {
    return experts_[static_cast<std::size_t>(local_token * shape_.top_k + choice)];
}

double DispatchProblem::factor(i64 local_token) const {
    double sum = 0;
    for (i64 k = 0; k < shape_.top_k; ++k) sum += weight(local_token, k) * scale(expert(local_token, k));
    return sum;
}

i64 DispatchProblem::wrong_arrivals(ConstTensorView rows, bool backward) const {
    i64 wrong = 0;
    for (std::size_t row = 0; row < arrivals_.size(); ++row) {
        const auto [token, choice] = arrivals_[row];
        const double weight = backward ? weight_of(token, choice, shape_.top_k) : 1.0;
        for (i64 h = 0; h < width_; ++h) {
            const double want = weight * value(token, h, backward ? 2 : 1);
            wrong += right(rows, static_cast<i64>(row) * width_ + h, want) ? 0 : 1;
        }
    }
    return wrong;
}

i64 DispatchProblem::wrong_results(ConstTensorView y) const {
    i64 wrong = 0;
    for (i64 token = 0; token < tokens_; ++token) {
        const double sum = factor(token);
        for (i64 h = 0; h < width_; ++h) wrong += right(y, token * width_ + h, sum * x(token, h)) ? 0 : 1;
    }
    return wrong;
}

i64 DispatchProblem::wrong_gradients(ConstTensorView dx, ConstTensorView d_weight) const {
    i64 wrong = 0;
    for (i64 token = 0; token < tokens_; ++token) {
        const double sum = factor(token);
        double product = 0;
        for (i64 h = 0; h < width_; ++h) {
            wrong += right(dx, token * width_ + h, sum * dy(token, h)) ? 0 : 1;
            product += x(token, h) * dy(token, h);
        }
        for (i64 k = 0; k < shape_.top_k; ++k)
            wrong += right(d_weight, token * shape_.top_k + k, scale(expert(token, k)) * product) ? 0 : 1;
    }
    return wrong;
}

}  // namespace moesaic
