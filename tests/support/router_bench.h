// One router by itself, with logits or inputs that a test sets.
#pragma once

#include "comm/self_communicator.h"
#include "layers/router.h"
#include "tests/support/layer_inputs.h"
#include "tests/support/router_variants.h"

namespace moesaic {

/// A router of an f64 model with as many experts as `width`, so that with the identity as its matrix the
/// logits of a token are its input.
class RouterBench {
  public:
    RouterBench(const RouterVariant& variant, i64 experts, i64 seq_len = 1)
        : spec(make_spec(variant, experts, seq_len)),
          rank(world_, 1, static_cast<int>(experts)),
          store(*rank.backend, DType::f64),
          router(make_router(spec, 0, store)) {
        store.end_segment();
        store.allocate(*rank.compute, 3);
        for (Parameter& parameter : store.parameters()) {
            if (!parameter.name.ends_with("mlp.gate.weight")) continue;
            for (i64 i = 0; i < parameter.value.elements(); ++i)
                parameter.value.as<double>()[i] = i / experts == i % experts ? 1 : 0;
        }
    }

    struct Outcome {
        std::vector<i32> expert;
        std::vector<double> weight, probability;
        RouterSaved saved;
        Routing routing;
    };
    /// Routes tokens with these inputs [T,E].
    [[nodiscard]] Outcome route(const std::vector<double>& x, i64 first_token = 0,
                                const std::vector<i32>& ids = {}) {
        const i64 tokens = std::ssize(x) / spec.experts;
        x_ = upload(rank, x, {tokens, spec.experts});
        ids_ = upload(rank, ids, {std::ssize(ids)});
        Outcome outcome;
        outcome.routing =
            router->route(rank.context, {x_, spec.seq_len, {}, ids_, first_token}, outcome.saved);
        outcome.expert = rank.read<i32>(outcome.routing.expert);
        outcome.weight = rank.read<double>(outcome.routing.weight);
        if (outcome.saved.probability) outcome.probability = rank.read<double>(outcome.saved.probability);
        return outcome;
    }
    /// d loss / d x of the last input, for these derivatives by the weights.
    [[nodiscard]] std::vector<double> backward(Outcome& outcome, const std::vector<double>& d_weight) {
        const Tensor d = upload(rank, d_weight, outcome.routing.weight.shape());
        Tensor dx = rank.backend->allocate(x_.shape(), DType::f64);
        rank.backend->zero(*rank.compute, dx);
        router->backward(rank.context, {x_, spec.seq_len}, outcome.routing, d, {}, outcome.saved, dx);
        return rank.read<double>(dx);
    }
    [[nodiscard]] std::vector<double> buffer(std::size_t index) {
        return rank.read<double>(store.buffers()[index].value);
    }

  private:
    [[nodiscard]] static ModelSpec make_spec(const RouterVariant& variant, i64 experts, i64 seq_len) {
        ModelSpec spec;
        spec.width = spec.experts = experts;
        spec.seq_len = seq_len;
        spec.layers = 1;
        spec.vocabulary = 97;
        use_variant(variant, spec);
        return spec;
    }

    SelfCommunicator world_;

  public:
    ModelSpec spec;
    RankSetup rank;
    ParameterStore store;
    std::unique_ptr<Router> router;

  private:
    Tensor x_, ids_;
};

}  // namespace moesaic
