#include "launch/bench/layer_oracle.h"

#include <algorithm>
#include <cmath>

#include "launch/bench/element_access.h"
#include "layers/layer.h"
#include "runtime/bfloat16.h"

namespace moesaic {

namespace {

constexpr i64 kCheckedTokens = 32;
using Row = std::vector<double>;

double dot(const double* a, const double* b, i64 count) {
    double sum = 0;
    for (i64 i = 0; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

class LayerOracle {
  public:
    LayerOracle(const LayerProblem& problem, const Mesh& mesh, const LayerOutcome& outcome)
        : problem_(problem), mesh_(mesh), outcome_(outcome), dtype_(outcome.y.dtype) {
        const i64 count = std::min(kCheckedTokens, problem.tokens_of_rank());
        for (i64 i = 0; i < count; ++i) {
            const i64 local = i * problem.tokens_of_rank() / count;
            tokens_.push_back(token_of(mesh.world().rank() * problem.tokens_of_rank() + local));
        }
    }

    i64 count_wrong() {
        for (int expert = 0; expert < mesh_.total_experts(); ++expert) add_expert(expert);
        for (const Token& token : tokens_) compare_token(token);
        return wrong_;
    }

  private:
    struct Token {
        i64 number;  // over all ranks
        Row x, dy, weight, d_weight, y, dx;
    };

    [[nodiscard]] double rounded(double value) const { return rounded_to(dtype_, value); }

    Token token_of(i64 number) const {
        Token token{number,          Row(at(width_)), Row(at(width_)), Row(at(choices_)), Row(at(choices_)),
                    Row(at(width_)), Row(at(width_))};
        for (i64 i = 0; i < width_; ++i) {
            token.x[at(i)] = rounded(problem_.x(number, i));
            token.dy[at(i)] = rounded(problem_.dy(number, i));
        }
        double sum = 0;
        for (i64 e = 0; e < problem_.spec().experts; ++e) {
            const i32* const chosen = problem_.choices_of(number);
            const bool counts = !normalized() || std::find(chosen, chosen + choices_, e) != chosen + choices_;
            if (counts) sum += std::exp(token.x[at(e)]);
        }
        for (i64 k = 0; k < choices_; ++k)
            token.weight[at(k)] = std::exp(token.x[at(problem_.choices_of(number)[k])]) / sum;
        return token;
    }

    /// This expert's part in the checked tokens' results, and its own gradients where it is this rank's.
    void add_expert(int expert) {
        const auto name = [&](const char* kind) {
            return block_parameter_name(0, fmt::format("mlp.experts.{}.{}_proj.weight", expert, kind));
        };
        const Row gate = initial_values(problem_, name("gate"), dtype_);
        const Row up = initial_values(problem_, name("up"), dtype_);
        const Row down = initial_values(problem_, name("down"), dtype_);
        for (Token& token : tokens_) {
            for (i64 k = 0; k < choices_; ++k) {
                if (problem_.choices_of(token.number)[k] == expert) add_choice(token, k, gate, up, down);
            }
        }
        if (mesh_.expert_owner(0, expert) != mesh_.experts().rank()) return;
        for (const i64 unit : {i64{0}, hidden_ / 2, hidden_ - 1}) {
            Row down_column(at(width_));
            for (i64 i = 0; i < width_; ++i) down_column[at(i)] = down[at(i * hidden_ + unit)];
            compare_unit(expert, unit, gate.data() + unit * width_, up.data() + unit * width_, down_column,
                         {name("gate"), name("up"), name("down")});
        }
    }

    void add_choice(Token& token, i64 k, const Row& gate, const Row& up, const Row& down) const {
        Row hidden(at(hidden_)), d_hidden(at(hidden_)), out(at(width_));
        for (i64 f = 0; f < hidden_; ++f) {
            const double g = dot(gate.data() + f * width_, token.x.data(), width_);
            hidden[at(f)] = g / (1 + std::exp(-g)) * dot(up.data() + f * width_, token.x.data(), width_);
        }
        for (i64 i = 0; i < width_; ++i) {
            out[at(i)] = dot(down.data() + i * hidden_, hidden.data(), hidden_);
            token.y[at(i)] += token.weight[at(k)] * out[at(i)];
            const double d_out = token.weight[at(k)] * token.dy[at(i)];
            for (i64 f = 0; f < hidden_; ++f) d_hidden[at(f)] += d_out * down[at(i * hidden_ + f)];
        }
        token.d_weight[at(k)] = dot(token.dy.data(), out.data(), width_);
        for (i64 f = 0; f < hidden_; ++f) {
            const double g = dot(gate.data() + f * width_, token.x.data(), width_);
            const double u = dot(up.data() + f * width_, token.x.data(), width_);
            const double s = 1 / (1 + std::exp(-g));
            const double d_gate = d_hidden[at(f)] * u * s * (1 + g * (1 - s)), d_up = d_hidden[at(f)] * g * s;
            for (i64 i = 0; i < width_; ++i)
                token.dx[at(i)] += d_gate * gate[at(f * width_ + i)] + d_up * up[at(f * width_ + i)];
        }
    }

    /// One hidden unit's row of gate and up and column of down, over every token that this rank's group
    /// sends.
    void compare_unit(int expert, i64 unit, const double* gate, const double* up, const Row& down,
                      const std::vector<std::string>& names) {
        Row d_gate(at(width_)), d_up(at(width_)), d_down(at(width_));
        double rows = 0;
        const i64 group_tokens = problem_.tokens_of_rank() * mesh_.expert_parallel();
        const i64 first = mesh_.replica() * group_tokens;
        for (i64 number = first; number < first + group_tokens; ++number) {
            for (i64 k = 0; k < choices_; ++k) {
                if (problem_.choices_of(number)[k] != expert) continue;
                const Token token = token_of(number);
                const double g = dot(gate, token.x.data(), width_), u = dot(up, token.x.data(), width_);
                const double s = 1 / (1 + std::exp(-g)), weight = token.weight[at(k)];
                const double d_hidden = weight * dot(token.dy.data(), down.data(), width_);
                ++rows;
                for (i64 i = 0; i < width_; ++i) {
                    d_gate[at(i)] += d_hidden * u * s * (1 + g * (1 - s)) * token.x[at(i)];
                    d_up[at(i)] += d_hidden * g * s * token.x[at(i)];
                    d_down[at(i)] += weight * token.dy[at(i)] * g * s * u;
                }
            }
        }
        for (i64 i = 0; i < width_; ++i) {
            const double size = dtype_ == DType::bf16 ? 1 + std::sqrt(rows) : 1;
            compare(gradient(names[0], unit * width_ + i), d_gate[at(i)], size);
            compare(gradient(names[1], unit * width_ + i), d_up[at(i)], size);
            compare(gradient(names[2], i * hidden_ + unit), d_down[at(i)], size);
        }
    }

    void compare_token(const Token& token) {
        const i64 local = token.number - mesh_.world().rank() * problem_.tokens_of_rank();
        Row dx = token.dx;  // and the router's part: the identity times d_logits
        double mean = 0;
        for (i64 k = 0; k < choices_; ++k) mean += token.d_weight[at(k)] * token.weight[at(k)];
        const double sum = std::exp(token.x[at(problem_.choices_of(token.number)[0])]) / token.weight[0];
        for (i64 e = 0; e < problem_.spec().experts && !normalized(); ++e)
            dx[at(e)] -= std::exp(token.x[at(e)]) / sum * mean;
        for (i64 k = 0; k < choices_; ++k) {
            const double own = token.d_weight[at(k)] - (normalized() ? mean : 0);
            dx[at(problem_.choices_of(token.number)[k])] += token.weight[at(k)] * own;
        }
        // The router's gradients are sums over the width: in columns that it reads, their size is that of dx.
        double routed = 1;
        for (i64 k = 0; k < choices_ && dtype_ == DType::bf16; ++k) routed += std::abs(token.d_weight[at(k)]);
        for (i64 i = 0; i < width_; ++i) {
            compare(load_element(outcome_.y, local * width_ + i), token.y[at(i)]);
            compare(load_element(outcome_.dx, local * width_ + i), dx[at(i)],
                    i < problem_.spec().experts ? routed : 1);
        }
    }

    [[nodiscard]] double gradient(const std::string& name, i64 element) const {
        ParameterStore& store = outcome_.store;
        for (std::size_t i = 0; i < store.parameters().size(); ++i) {
            if (store.parameters()[i].name == name)
                return load_element(store.sums(Placement::expert), store.offset_of(i) + element);
        }
        MOESAIC_ASSERT(false, "no parameter {}", name);
        return 0;
    }
    /// `size` is that of the sum's terms together: in bf16 they are rounded, however they cancel.
    void compare(double have, double want, double size = 1) {
        const double tolerance = dtype_ == DType::f64 ? 1e-11 : dtype_ == DType::f32 ? 1e-4 : 3e-2;
        if (!(std::abs(have - want) <= tolerance * (size + std::abs(want)))) ++wrong_;
    }
    [[nodiscard]] bool normalized() const { return problem_.spec().router.normalize; }
    static std::size_t at(i64 index) { return static_cast<std::size_t>(index); }

    const LayerProblem& problem_;
    const Mesh& mesh_;
    const LayerOutcome& outcome_;
    DType dtype_;
    i64 width_ = problem_.spec().width, hidden_ = problem_.spec().hidden, choices_ = problem_.spec().top_k;
    std::vector<Token> tokens_;
    i64 wrong_ = 0;
};

}  // namespace

i64 count_wrong(const LayerProblem& problem, const Mesh& mesh, const LayerOutcome& outcome) {
    return LayerOracle(problem, mesh, outcome).count_wrong();
}

}  // namespace moesaic
