// Sharded AdamW against the same update applied tensor by tensor, bit for bit, on every layout.
#include "comm/sharded_optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "runtime/bfloat16.h"
#include "tests/support/parameter_model.h"
#include "tests/support/rank_setup.h"

namespace moesaic {
namespace {

constexpr int kExperts = 4;
constexpr int kSteps = 3;
constexpr double kRates[] = {1e-2, 5e-3, 2e-3};
constexpr double kClipFactors[] = {1.0, 0.25, 0.5};
const AdamWSettings kSettings{0.9, 0.95, 1e-8, 0.1};

struct Layout {
    int world = 1, expert_parallel = 1, zero = 1;
    i64 bucket_bytes = 70000;
    StreamChoice streams = {};
    DType dtype = DType::f32;
};

/// Value and moments of a logical tensor.
struct TensorState {
    std::vector<float> value, first, second;
    bool operator==(const TensorState&) const = default;
};
using ModelState = std::map<std::string, TensorState>;

/// The state after each step; [0] is the beginning. Every tensor is updated alone.
std::vector<ModelState> serial_states() {
    std::vector<ModelState> states(kSteps + 1);
    run_ranks(1, [&](Communicator& world) {
        RankSetup setup(world, 1, kExperts);
        ParameterStore store(*setup.backend, DType::f32);
        declare_model(store, setup.mesh);
        store.allocate(*setup.compute, 1);
        for (const Parameter& parameter : store.parameters()) {
            const auto count = static_cast<std::size_t>(parameter.shape.elements());
            TensorState state{setup.read<float>(parameter.value), std::vector<float>(count),
                              std::vector<float>(count)};
            states[0][parameter.name] = state;
            for (int step = 1; step <= kSteps; ++step) {
                std::vector<float> gradient(count);
                const TestGradient values(parameter.name, step);
                for (std::size_t i = 0; i < count; ++i) gradient[i] = values(static_cast<i64>(i));
                const Shape flat{parameter.shape.elements()};
                setup.backend->adamw(*setup.compute,
                                     {.parameter = view_of(state.value.data(), flat),
                                      .first_moment = view_of(state.first.data(), flat),
                                      .second_moment = view_of(state.second.data(), flat),
                                      .gradient = view_of(std::as_const(gradient).data(), flat),
                                      .lr = kRates[step - 1],
                                      .weight_decay = parameter.shape.rank() >= 2 ? 0.1 : 0.0,
                                      .grad_scale = kClipFactors[step - 1],
                                      .step = step});
                states[static_cast<std::size_t>(step)][parameter.name] = state;
            }
        }
    });
    return states;
}

class OptimizerBench {
  public:
    OptimizerBench(Communicator& world, const Layout& layout)
        : setup(world, layout.expert_parallel, kExperts, layout.streams),
          store(*setup.backend, layout.dtype) {
        declare_model(store, setup.mesh);
        store.allocate(*setup.compute, 1);
        sync = std::make_unique<GradientSync>(setup.context, store, layout.bucket_bytes);
        optimizer = std::make_unique<ShardedOptimizer>(setup.context, store, *sync, kSettings, layout.zero);
    }

    /// Collective. Gradients of `step`, each from one rank of its group, and the update.
    void train(int step) {
        setup.drain();
        store.zero_gradients(*setup.compute);
        setup.drain();
        for (const Parameter& parameter : store.parameters()) {
            const Communicator& group = GradientSync::group_of(setup.context, parameter.placement);
            const bool source = source_rank(parameter.name, group.size()) == group.rank();
            const TestGradient gradient(parameter.name, step);
            for (i64 i = 0; i < parameter.shape.elements(); ++i) {
                parameter.grad.as<float>()[i] = source ? gradient(i) : 0.0F;
            }
        }
        for (int segment = count_segments(store) - 1; segment >= 0; --segment) {
            sync->segment_ready(setup.context, segment);
        }
        sync->finish(setup.context);
        optimizer->step(setup.context, kRates[step - 1], kClipFactors[step - 1], step);
    }
    /// Collective. Compares everything this rank holds.
    void expect_state(const ModelState& expected) {
        for (const Parameter& parameter : store.parameters()) {  // waits for compute alone
            expect_value(parameter, expected.at(parameter.name).value);
        }
        std::size_t visits = 0;
        const auto equal = [](ConstTensorView have, const std::vector<float>& want) {
            return std::equal(want.begin(), want.end(), have.as<float>());
        };
        optimizer->visit_state(setup.context, [&](const Parameter& parameter, const ParameterState& state) {
            ++visits;
            EXPECT_EQ(state.value.shape, parameter.shape);
            EXPECT_EQ(state.first_moment.shape, parameter.shape);
            EXPECT_EQ(state.second_moment.shape, parameter.shape);
            EXPECT_TRUE(equal(state.value, expected.at(parameter.name).value)) << parameter.name;
            EXPECT_TRUE(equal(state.first_moment, expected.at(parameter.name).first)) << parameter.name;
            EXPECT_TRUE(equal(state.second_moment, expected.at(parameter.name).second)) << parameter.name;
        });
        EXPECT_EQ(visits, store.parameters().size());
    }
    /// The store holds the value, or its rounding.
    void expect_value(const Parameter& parameter, const std::vector<float>& value) {
        if (store.dtype() == DType::f32) {
            EXPECT_TRUE(setup.read<float>(parameter.value) == value) << parameter.name;
            return;
        }
        std::vector<BFloat16> rounded;
        for (const float one : value) rounded.push_back(to_bfloat16(one));
        EXPECT_TRUE(setup.read<BFloat16>(parameter.value) == rounded) << parameter.name;
    }
    /// Names are those of the experts that a layer's placement gives this rank.
    void expect_placed(int layer, const ExpertPlacement& placement) {
        EXPECT_EQ(setup.mesh.placement(layer), placement);
        std::set<i64> named;
        for (const Parameter& parameter : store.parameters()) {
            if (parameter.placement != Placement::expert || parameter.layer != layer) continue;
            named.insert(parameter.expert);
            EXPECT_NE(parameter.name.find(fmt::format(".experts.{}.", parameter.expert)), std::string::npos);
        }
        const std::span<const i32> own = setup.mesh.own_experts(layer);
        EXPECT_EQ(named, std::set<i64>(own.begin(), own.end()));
    }
    void load(const ModelState& state) {
        for (Parameter& parameter : store.parameters()) {
            TensorState tensor = state.at(parameter.name);
            optimizer->load_state(
                setup.context, parameter,
                {view_of(tensor.value.data(), parameter.shape), view_of(tensor.first.data(), parameter.shape),
                 view_of(tensor.second.data(), parameter.shape)});
            std::ranges::fill(tensor.value, -1.0F);  // has been read
            std::ranges::fill(tensor.first, -1.0F);
            std::ranges::fill(tensor.second, -1.0F);
        }
        setup.drain();
    }

    RankSetup setup;
    ParameterStore store;
    std::unique_ptr<GradientSync> sync;
    std::unique_ptr<ShardedOptimizer> optimizer;
};

std::vector<Layout> layouts() {
    std::vector<Layout> all;
    const std::pair<int, int> worlds[] = {{1, 1}, {2, 1}, {2, 2}, {3, 1}, {4, 1}, {4, 2}, {4, 4}, {8, 2}};
    for (const auto& [world, expert_parallel] : worlds) {
        for (const int zero : {0, 1}) {
            all.push_back({world, expert_parallel, zero});
            if (world == 8) continue;
            all.push_back({world, expert_parallel, zero, 1});
            all.push_back({world, expert_parallel, zero, i64{1} << 40});
            all.push_back({world, expert_parallel, zero, 70000, {StreamMode::deferred_shuffled, 2}});
            all.push_back({world, expert_parallel, zero, 70000, {}, DType::bf16});
        }
    }
    return all;
}

TEST(ShardedOptimizer, IsTheSerialUpdateOnEveryLayout) {
    const std::vector<ModelState> serial = serial_states();
    for (const Layout& layout : layouts()) {
        SCOPED_TRACE(testing::Message()
                     << layout.world << " ranks, expert " << layout.expert_parallel << ", zero "
                     << layout.zero << ", " << layout.bucket_bytes << ", " << name_of(layout.dtype));
        run_ranks(layout.world, [&](Communicator& world) {
            OptimizerBench bench(world, layout);
            bench.expect_state(serial[0]);
            for (int step = 1; step <= kSteps; ++step) bench.train(step);
            bench.expect_state(serial[kSteps]);
            bench.setup.drain();
        });
        if (testing::Test::HasFailure()) break;
    }
}

TEST(ShardedOptimizer, ContinuesFromALoadedStateOnAnotherLayout) {
    const std::vector<ModelState> serial = serial_states();
    for (const Layout& layout : {Layout{1, 1, 1}, Layout{3, 1, 1}, Layout{4, 2, 1}, Layout{4, 4, 0},
                                 Layout{4, 2, 1, 1, {StreamMode::deferred_shuffled, 6}},
                                 Layout{4, 2, 1, 1, {}, DType::bf16}, Layout{2, 1, 0, 1, {}, DType::bf16}}) {
        run_ranks(layout.world, [&](Communicator& world) {
            OptimizerBench bench(world, layout);
            bench.train(3);  // another past, which the load has to overwrite
            bench.load(serial[2]);
            bench.expect_state(serial[2]);
            bench.train(3);
            bench.expect_state(serial[3]);
            bench.setup.drain();
        });
    }
}

/// From place to place between steps: every tensor goes on as if it had stayed, under its own name.
TEST(ShardedOptimizer, MovesExpertsWithTheirState) {
    const std::vector<ModelState> serial = serial_states();
    std::vector<double> norms;
    run_ranks(1, [&](Communicator& world) {
        OptimizerBench bench(world, {});
        for (const int step : {1, 2}) {
            bench.train(step);
            norms.push_back(bench.sync->gradient_norm(bench.setup.context));
        }
    });
    for (const Layout& layout : layouts()) {
        SCOPED_TRACE(testing::Message()
                     << layout.world << " ranks, expert " << layout.expert_parallel << ", zero "
                     << layout.zero << ", " << layout.bucket_bytes << ", " << name_of(layout.dtype));
        run_ranks(layout.world, [&](Communicator& world) {
            OptimizerBench bench(world, layout);
            const auto move = [&](const NewPlacements& next) {
                bench.setup.drain();
                const i64 allocations = bench.setup.backend->pool().fresh_allocations();
                bench.optimizer->move_experts(bench.setup.context, *bench.sync, next);
                bench.setup.drain();
                EXPECT_EQ(bench.setup.backend->pool().fresh_allocations(), allocations);
                for (const auto& [layer, placement] : next) bench.expect_placed(layer, placement);
            };
            bench.train(1);
            EXPECT_EQ(bench.sync->gradient_norm(bench.setup.context), norms[0]);
            move({{0, ExpertPlacement({3, 2, 1, 0})}, {1, ExpertPlacement({0, 2, 1, 3})}});
            bench.expect_state(serial[1]);
            bench.train(2);
            EXPECT_EQ(bench.sync->gradient_norm(bench.setup.context), norms[1]);
            move({{1, ExpertPlacement({1, 3, 0, 2})}});  // also within a rank
            bench.train(3);
            bench.expect_state(serial[3]);
            move({{0, ExpertPlacement({0, 1, 2, 3})}, {1, ExpertPlacement({0, 1, 2, 3})}});
            bench.expect_state(serial[3]);
            bench.setup.drain();
        });
        if (testing::Test::HasFailure()) break;
    }
}

/// A checkpoint must not slow the step after it.
TEST(ShardedOptimizer, ReadingItsStateLeavesPackedCopiesInUse) {
    run_ranks(1, [&](Communicator& world) {
        RankSetup setup(world, 1, kExperts);
        ParameterStore store(*setup.backend, DType::f32);
        Parameter parameter;
        parameter.name = "weight";
        parameter.shape = {64, 32};
        Weight weight = store.declare(parameter);
        store.used_in_products(weight);
        store.end_segment();
        store.keep_packed_copies();
        store.allocate(*setup.compute, 1);
        const GradientSync sync(setup.context, store, 70000);
        ShardedOptimizer optimizer(setup.context, store, sync, kSettings, 1);
        store.pack(*setup.compute);
        setup.drain();
        ASSERT_NE(weight.packed_plain().data, nullptr);
        optimizer.visit_state(setup.context, [](const Parameter&, const ParameterState&) {});
        EXPECT_NE(weight.packed_plain().data, nullptr);
        setup.drain();
    });
}

TEST(ShardedOptimizer, HoldsOnlyItsShareOfTheMoments) {
    const auto bytes_on = [](const Layout& layout) {
        std::vector<i64> bytes(static_cast<std::size_t>(layout.world));
        std::vector<i64> elements(bytes.size());
        run_ranks(layout.world, [&](Communicator& world) {
            OptimizerBench bench(world, layout);
            bytes[static_cast<std::size_t>(world.rank())] = bench.optimizer->moment_bytes();
            elements[static_cast<std::size_t>(world.rank())] =
                bench.store.elements(Placement::replicated) + bench.store.elements(Placement::expert);
            bench.setup.drain();
        });
        return std::pair(bytes, elements);
    };
    const i64 logical = bytes_on({1, 1, 1}).first[0];
    const auto [sharded, local] = bytes_on({4, 2, 1});
    i64 sum = 0;
    for (const i64 bytes : sharded) {
        sum += bytes;
        EXPECT_LT(bytes, logical / 2);
    }
    EXPECT_EQ(sum, logical);  // every moment once
    const auto [whole, elements] = bytes_on({4, 2, 0});
    for (std::size_t rank = 0; rank < whole.size(); ++rank) EXPECT_EQ(whole[rank], 2 * 4 * elements[rank]);
}

}  // namespace
}  // namespace moesaic
