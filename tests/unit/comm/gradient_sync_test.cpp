// Gradient sums against serial sums in rank order, bit for bit, and a norm that no layout changes.
#include "comm/gradient_sync.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <optional>

#include "tests/support/parameter_model.h"
#include "tests/support/rank_setup.h"

namespace moesaic {
namespace {

constexpr int kExperts = 4;

struct Layout {
    int world = 1, expert_parallel = 1;
};
constexpr Layout kLayouts[] = {{1, 1}, {2, 1}, {2, 2}, {3, 1}, {4, 1}, {4, 2}, {4, 4}, {8, 4}, {8, 2}};
constexpr i64 kBucketBytes[] = {1, 70000, i64{1} << 40};

/// One rank with a model.
class SyncBench {
  public:
    SyncBench(Communicator& world, const Layout& layout, i64 bucket_bytes, StreamChoice streams = {},
              const PlantedDefects& defects = {})
        : setup(world, layout.expert_parallel, kExperts, streams), store(*setup.backend, DType::f32) {
        declare_model(store, setup.mesh);
        store.allocate(*setup.compute, 1);
        sync = std::make_unique<GradientSync>(setup.context, store, bucket_bytes, defects);
    }

    /// Every rank of the reduce group adds its own gradient.
    void fill_from_all() {
        fill([](const std::string& name, int rank, int) { return TestGradient(name, 1, rank); });
    }
    /// The whole gradient comes from one rank of the group, so that the sum is the same on every layout.
    void fill_from_one() {
        fill([](const std::string& name, int rank, int size) {
            return source_rank(name, size) == rank ? std::optional(TestGradient(name)) : std::nullopt;
        });
    }
    /// Collective. The backward's part in it: compute still works on a segment when it is handed over.
    void reduce() {
        for (int segment = count_segments(store) - 1; segment >= 0; --segment) {
            for (const Placement placement : {Placement::replicated, Placement::expert}) {
                const ArenaRange range = store.segments(placement)[static_cast<std::size_t>(segment)];
                const TensorView gradients = store.gradients(placement).flat(range.begin, range.size());
                setup.backend->scale(*setup.compute, 2.0, gradients);
            }
            sync->segment_ready(setup.context, segment);
            if (segment % 2 == 1) sync->start(setup.context);
        }
        sync->finish(setup.context);
    }

    RankSetup setup;
    ParameterStore store;
    std::unique_ptr<GradientSync> sync;

  private:
    using Source = std::function<std::optional<TestGradient>(const std::string&, int rank, int size)>;
    void fill(const Source& source) {
        setup.drain();
        store.zero_gradients(*setup.compute);  // a new step: new sums
        setup.drain();
        for (const Parameter& parameter : store.parameters()) {
            const Communicator& group = GradientSync::group_of(setup.context, parameter.placement);
            const std::optional<TestGradient> gradient = source(parameter.name, group.rank(), group.size());
            for (i64 i = 0; i < parameter.shape.elements(); ++i) {
                parameter.grad.as<float>()[i] = gradient ? (*gradient)(i) / 2 : 0.0F;
            }
        }
    }
};

TEST(GradientBuckets, CoverTheArenaInWholeBlocks) {
    run_ranks(1, [](Communicator& world) {
        RankSetup setup(world, 1, kExperts);
        ParameterStore store(*setup.backend, DType::f32);
        declare_model(store, setup.mesh);
        store.allocate(*setup.compute, 1);
        for (const Placement placement : {Placement::replicated, Placement::expert}) {
            for (const i64 bytes : kBucketBytes) {
                for (const int size : {1, 2, 3, 5, 8, 40}) {
                    i64 end = store.elements(placement);
                    const auto reference = plan_buckets(store, placement, bytes, 0, size);
                    for (std::size_t i = 0; i < reference.size(); ++i) {
                        EXPECT_EQ(reference[i].range.end, end);  // backward, without a gap
                        end = reference[i].range.begin;
                        i64 begin = end, largest = 0;
                        for (int rank = 0; rank < size; ++rank) {
                            const auto mine = plan_buckets(store, placement, bytes, rank, size)[i];
                            EXPECT_EQ(mine.rows, reference[i].rows);
                            EXPECT_EQ(mine.owned.begin, begin);
                            EXPECT_EQ(mine.owned.size(), mine.rows[static_cast<std::size_t>(rank)]);
                            begin = mine.owned.end;
                            largest = std::max(largest, mine.owned.size());
                            for (const TensorPiece& piece : pieces_in(store, placement, mine.owned)) {
                                const Parameter& parameter = store.parameters()[piece.parameter];
                                const i64 last = piece.first_element + piece.range.size();
                                EXPECT_EQ(piece.first_element % kGradientBlock, 0) << parameter.name;
                                EXPECT_TRUE(last % kGradientBlock == 0 || last == parameter.shape.elements());
                            }
                        }
                        EXPECT_EQ(begin, reference[i].range.end);
                        EXPECT_LE(largest, reference[i].range.size() / size + kGradientBlock);
                    }
                    EXPECT_EQ(end, 0);
                }
            }
        }
    });
}

TEST(GradientBuckets, GrowUntilTheyAreLargeEnough) {
    run_ranks(1, [](Communicator& world) {
        RankSetup setup(world, 1, kExperts);
        ParameterStore store(*setup.backend, DType::f32);
        declare_model(store, setup.mesh);
        const auto firsts = [&](Placement placement, i64 bytes) {
            std::vector<int> segments;
            for (const GradientBucket& bucket : plan_buckets(store, placement, bytes, 0, 1)) {
                segments.push_back(bucket.first_segment);
            }
            return segments;
        };
        using Segments = std::vector<int>;
        EXPECT_EQ(firsts(Placement::replicated, 1), (Segments{3, 2, 1, 0}));
        EXPECT_EQ(firsts(Placement::expert, 1), (Segments{2, 1}));
        EXPECT_EQ(firsts(Placement::replicated, i64{1} << 40), (Segments{0}));
        EXPECT_EQ(firsts(Placement::expert, i64{1} << 40), (Segments{1}));
        const ArenaRange head = store.segments(Placement::replicated)[3];
        EXPECT_EQ(firsts(Placement::replicated, 4 * head.size()), (Segments{3, 0}));
        EXPECT_EQ(firsts(Placement::replicated, 4 * head.size() + 1), (Segments{2, 0}));
    });
}

/// Collective. Compares what this rank owns with the serial sum in rank order.
void expect_serial_sums(SyncBench& bench) {
    i64 compared = 0;
    for (const Placement placement : {Placement::replicated, Placement::expert}) {
        const int size = GradientSync::group_of(bench.setup.context, placement).size();
        const auto grads = bench.setup.read<float>(bench.store.gradients(placement));
        for (const ArenaRange& range : bench.sync->owned(placement)) {
            for (const TensorPiece& piece : pieces_in(bench.store, placement, range)) {
                const std::string& name = bench.store.parameters()[piece.parameter].name;
                std::vector<TestGradient> gradients;
                for (int rank = 0; rank < size; ++rank) gradients.emplace_back(name, 1, rank);
                for (i64 i = 0; i < piece.range.size(); ++i) {
                    double sum = gradients[0](piece.first_element + i);
                    for (std::size_t rank = 1; rank < gradients.size(); ++rank) {
                        sum += gradients[rank](piece.first_element + i);
                    }
                    const float have = grads[static_cast<std::size_t>(piece.range.begin + i)];
                    ASSERT_EQ(std::bit_cast<u32>(have), std::bit_cast<u32>(static_cast<float>(sum)))
                        << name << " " << i;
                    ++compared;
                }
            }
        }
    }
    EXPECT_GT(compared, 0);
}

TEST(GradientSync, SumsInRankOrderAtTheOwner) {
    for (const Layout& layout : kLayouts) {
        for (const i64 bucket_bytes : kBucketBytes) {
            for (const StreamChoice streams :
                 {StreamChoice{}, StreamChoice{StreamMode::deferred_shuffled, 5}}) {
                if (layout.world == 8 && bucket_bytes != 70000) continue;
                run_ranks(layout.world, [&](Communicator& world) {
                    SyncBench bench(world, layout, bucket_bytes, streams);
                    bench.fill_from_all();
                    bench.reduce();
                    expect_serial_sums(bench);
                    bench.setup.drain();
                });
            }
        }
    }
}

std::vector<double> norms_on(const Layout& layout, i64 bucket_bytes, StreamChoice streams = {},
                             const PlantedDefects& defects = {}) {
    std::vector<double> norms(static_cast<std::size_t>(layout.world));
    run_ranks(layout.world, [&](Communicator& world) {
        SyncBench bench(world, layout, bucket_bytes, streams, defects);
        for (int step = 0; step < 2; ++step) {  // the second step finds the first one's state
            bench.fill_from_one();
            bench.reduce();
            norms[static_cast<std::size_t>(world.rank())] = bench.sync->gradient_norm(bench.setup.context);
        }
        bench.setup.drain();
    });
    return norms;
}

double serial_norm(bool experts, double expert_factor) {
    double squares = 0;
    run_ranks(1, [&](Communicator& world) {
        SyncBench bench(world, {}, 1);
        for (const Parameter& parameter : bench.store.parameters()) {
            const bool expert = parameter.placement == Placement::expert;
            if (expert && !experts) continue;
            const TestGradient gradient(parameter.name);
            for (i64 i = 0; i < parameter.shape.elements(); ++i) {
                const double value = gradient(i) * (expert ? expert_factor : 1.0);
                squares += value * value;
            }
        }
    });
    return std::sqrt(squares);
}

TEST(GradientSync, NormIsTheSameOnEveryRankAndLayout) {
    const double reference = norms_on({1, 1}, 1)[0];
    EXPECT_NEAR(reference, serial_norm(true, 1.0), 1e-10);
    for (const Layout& layout : kLayouts) {
        for (const i64 bucket_bytes : kBucketBytes) {
            if (layout.world == 8 && bucket_bytes != 70000) continue;
            for (const StreamChoice streams :
                 {StreamChoice{}, StreamChoice{StreamMode::deferred_shuffled, 9}}) {
                for (const double norm : norms_on(layout, bucket_bytes, streams)) {
                    EXPECT_EQ(std::bit_cast<u64>(norm), std::bit_cast<u64>(reference))
                        << layout.world << " ranks, expert " << layout.expert_parallel << ", "
                        << bucket_bytes;
                }
            }
        }
    }
}

TEST(GradientSync, PlantedDefectsChangeTheNorm) {
    const double without = serial_norm(false, 1.0), doubled = serial_norm(true, 2.0);
    EXPECT_GT(doubled, 1.2 * serial_norm(true, 1.0));
    for (const Layout& layout : {Layout{1, 1}, Layout{4, 2}}) {
        for (const double norm : norms_on(layout, 70000, {}, {.norm_skips_experts = true})) {
            EXPECT_NEAR(norm, without, 1e-10);
        }
        for (const double norm : norms_on(layout, 70000, {}, {.expert_gradient_factor = 2})) {
            EXPECT_NEAR(norm, doubled, 1e-10);
        }
    }
}

TEST(GradientSyncDeathTest, RefusesSegmentsOutOfOrder) {
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
    EXPECT_DEATH(run_ranks(1,
                           [](Communicator& world) {
                               SyncBench bench(world, {}, 1);
                               bench.sync->segment_ready(bench.setup.context, 0);
                           }),
                 "is ready where");
    EXPECT_DEATH(run_ranks(1,
                           [](Communicator& world) {
                               SyncBench bench(world, {}, 1);
                               bench.sync->finish(bench.setup.context);
                           }),
                 "are not ready");
}

}  // namespace
}  // namespace moesaic
