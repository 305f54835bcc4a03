// The layout of ranks: who holds which expert, who replicates whom, and what is refused.
#include "comm/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/self_communicator.h"
#include "comm/thread_communicator.h"

namespace moesaic {
namespace {

TEST(ChooseExpertParallel, IsTheLargestDivisorThatFitsNodeAndWorld) {
    EXPECT_EQ(choose_expert_parallel(8, 1, 1), 1);
    EXPECT_EQ(choose_expert_parallel(8, 4, 4), 4);
    EXPECT_EQ(choose_expert_parallel(8, 16, 8), 8);
    EXPECT_EQ(choose_expert_parallel(8, 64, 16), 8);
    EXPECT_EQ(choose_expert_parallel(6, 4, 4), 2);
    EXPECT_EQ(choose_expert_parallel(3, 4, 4), 1);
    EXPECT_EQ(choose_expert_parallel(12, 18, 9), 3);
    EXPECT_EQ(choose_expert_parallel(0, 4, 4), 1);
}

std::string refusal(const MeshShape& shape, int experts, int world) {
    try {
        check_mesh_shape(shape, experts, world);
    } catch (const UserError& mistake) {
        return mistake.what();
    }
    return {};
}

TEST(MeshShape, RefusesWhatDoesNotFit) {
    EXPECT_EQ(refusal({.expert = 3}, 8, 4),
              "parallel.expert: 3 does not divide both 4 ranks and 8 experts; use one of 1, 2, 4, or auto");
    EXPECT_THAT(refusal({.expert = 4}, 6, 4), testing::HasSubstr("use one of 1, 2, or auto"));
    EXPECT_THAT(refusal({.expert = 0}, 8, 4), testing::HasSubstr("parallel.expert: 0"));
    EXPECT_THAT(refusal({.expert = 2}, 0, 4), testing::HasSubstr("without experts"));
    EXPECT_THAT(refusal({.tensor = 2}, 8, 4),
                testing::HasSubstr("parallel.tensor: 2 is not in this version"));
    EXPECT_EQ(refusal({.expert = 2}, 8, 6), "");
    EXPECT_EQ(
        refusal({.expert = 4, .expert_tensor = 2}, 8, 4),
        "parallel.expert: 4 does not divide both 4 ranks / 2 (parallel.expert_tensor) and 8 experts; use "
        "one of 1, 2, or auto");
    EXPECT_EQ(refusal({.expert_tensor = 2}, 8, 3),
              "parallel.expert_tensor: 2 does not divide 3 ranks; use a divisor, or a multiple of 2 ranks");
    EXPECT_THAT(refusal({.expert_tensor = 2}, 0, 2), testing::HasSubstr("without experts"));
    EXPECT_EQ(refusal({.expert = 2, .expert_tensor = 3}, 8, 12), "");
    EXPECT_EQ(refusal({}, 0, 5), "");
}

TEST(Mesh, PlacesRanksAndExperts) {
    run_ranks(6, [](Communicator& world) {
        const Mesh mesh(world, {.expert = 3}, 12);
        EXPECT_EQ(mesh.experts().size(), 3);
        EXPECT_EQ(mesh.experts().rank(), world.rank() % 3);
        EXPECT_EQ(mesh.experts().name(), "experts");
        EXPECT_EQ(mesh.replicas().size(), 2);
        EXPECT_EQ(mesh.replicas().rank(), world.rank() / 3);
        EXPECT_EQ(mesh.replica(), world.rank() / 3);
        EXPECT_EQ(mesh.local_experts(), 4);
        EXPECT_EQ(mesh.own_experts(0).front(), world.rank() % 3 * 4);
        for (int expert = 0; expert < 12; ++expert) EXPECT_EQ(mesh.expert_owner(0, expert), expert / 4);
    });
}

/// 12 ranks: two replicas of three expert-parallel ranks in two slices.
TEST(Mesh, SlicesAreNeighbours) {
    run_ranks(12, [](Communicator& world) {
        const Mesh mesh(world, {.expert = 3, .expert_tensor = 2}, 6);
        EXPECT_EQ(mesh.experts().size(), 6);
        EXPECT_EQ(mesh.experts().rank(), world.rank() % 6);
        EXPECT_EQ(mesh.replica(), world.rank() / 6);
        EXPECT_EQ(mesh.replicas().size(), 2);
        EXPECT_EQ(mesh.replicas().rank(), world.rank() / 6);
        EXPECT_EQ(mesh.expert_rank(), world.rank() % 6 / 2);
        EXPECT_EQ(mesh.slice(), world.rank() % 2);
        EXPECT_EQ(mesh.slices().size(), 2);
        EXPECT_EQ(mesh.slices().rank(), mesh.slice());
        EXPECT_EQ(mesh.same_slice().size(), 3);
        EXPECT_EQ(mesh.same_slice().rank(), mesh.expert_rank());
        EXPECT_EQ(mesh.local_experts(), 2);
        EXPECT_EQ(mesh.own_experts(0).front(), mesh.expert_rank() * 2);
        for (int expert = 0; expert < 6; ++expert) EXPECT_EQ(mesh.expert_owner(0, expert), expert / 2);
    });
    EXPECT_EQ(choose_expert_parallel(8, 8, 8, 2), 4);
    EXPECT_EQ(choose_expert_parallel(8, 8, 2, 2), 1);
    EXPECT_EQ(choose_expert_parallel(8, 8, 1, 2), 1);
}

TEST(Mesh, WorksAloneAndWithoutExperts) {
    SelfCommunicator self;
    const Mesh alone(self, {}, 4);
    EXPECT_EQ(alone.local_experts(), 4);
    const Mesh dense(self, {}, 0);
    EXPECT_EQ(dense.local_experts(), 0);
}

TEST(Mesh, RefusesTheSameOnEveryRank) {
    EXPECT_THROW(run_ranks(4, [](Communicator& world) { Mesh(world, {.expert = 3}, 3); }), UserError);
}

}  // namespace
}  // namespace moesaic
