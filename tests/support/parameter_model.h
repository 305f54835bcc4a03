// A small uneven model of parameters for tests of everything that treats gradients and optimizer state.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "comm/mesh.h"
#include "runtime/base/philox.h"
#include "runtime/parameter_store.h"

namespace moesaic {

inline constexpr int kModelBlocks = 2;

/// Declares an embedding, blocks with experts and a head, with sizes around the gradient block: shorter,
/// exactly one, one element more, many with a rest.
inline void declare_model(ParameterStore& store, const Mesh& mesh) {
    const auto parameter = [](const std::string& name, Shape shape, Placement placement, int layer,
                              i64 expert) {
        Parameter declared;
        declared.name = name;
        declared.shape = shape;
        declared.placement = placement;
        declared.layer = layer;
        declared.expert = expert;
        declared.init_constant = 0.25 + static_cast<double>(hash_name(name) % 8) / 16;
        return declared;
    };
    const auto replicated = [&](const std::string& name, Shape shape, int layer) {
        store.declare(parameter(name, shape, Placement::replicated, layer, -1));
    };
    replicated("embedding", {53, 101}, -1);
    store.end_segment();
    for (int layer = 0; layer < kModelBlocks; ++layer) {
        const std::string prefix = "layers." + std::to_string(layer) + ".";
        replicated(prefix + "norm", {33}, layer);
        replicated(prefix + "attention", {64, 64}, layer);
        replicated(prefix + "router", {17, 241}, layer);
        const std::span<const i32> own = mesh.own_experts(layer);
        for (const auto& [part, shape] :
             {std::pair{"gate", Shape{41, 103}}, std::pair{"down", Shape{7, 3}}}) {
            std::vector<Parameter> experts;
            for (const i32 expert : own) {
                experts.push_back(parameter(prefix + "experts." + std::to_string(expert) + "." + part, shape,
                                            Placement::expert, layer, expert));
            }
            store.declare(std::move(experts), {std::ssize(own), shape[0], shape[1]});
        }
        store.end_segment();
    }
    replicated("norm", {50}, -1);
    replicated("head", {211, 103}, -1);
    store.end_segment();
}

inline int count_segments(const ParameterStore& store) {
    return static_cast<int>(store.segments(Placement::replicated).size());
}

/// Values between -1 and 1 that only this tensor, step and rank have; rank -1 is the sum that all layouts
/// share. Odd ranks' are smaller, so that the order of a sum shows in its last bits.
class TestGradient {
  public:
    explicit TestGradient(const std::string& name, i64 step = 1, int rank = -1)
        : random_(static_cast<u64>(step * 1000 + rank), name),
          scale_(rank >= 0 && rank % 2 == 1 ? 0.01 : 1.0) {}
    [[nodiscard]] float operator()(i64 element) const {
        const double bits = random_.bits(static_cast<u64>(element));
        return static_cast<float>((bits / 2147483648.0 - 1.0) * scale_);
    }

  private:
    Philox random_;
    double scale_;
};

/// The rank of `size` that a logical tensor's whole gradient comes from where layouts are compared.
inline int source_rank(const std::string& name, int size) {
    return static_cast<int>(hash_name(name) % static_cast<u64>(size));
}

}  // namespace moesaic
