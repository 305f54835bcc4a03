#include "comm/node_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic {
namespace {

using testing::ElementsAre;

TEST(NodeGrid, BlocksOfRanks) {
    const NodeGrid grid = make_node_grid(std::vector<int>{0, 0, 1, 1});
    EXPECT_EQ(grid.nodes, 2);
    EXPECT_TRUE(grid.even());
    EXPECT_EQ(grid.ranks_per_node(), 2);
    EXPECT_THAT(grid.local_of, ElementsAre(0, 1, 0, 1));
    EXPECT_EQ(grid.rank_at(1, 0), 2);
    EXPECT_THAT(grid.by_node(), ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(grid.by_local(), ElementsAre(0, 2, 1, 3));
    EXPECT_EQ(grid.text(), "2 nodes of 2 ranks");
}

TEST(NodeGrid, RanksDealtOutToNodesOfAnyNumbers) {
    const NodeGrid grid = make_node_grid(std::vector<int>{9, 4, 4, 9, 9, 4});
    EXPECT_THAT(grid.node_of, ElementsAre(0, 1, 1, 0, 0, 1));
    EXPECT_THAT(grid.local_of, ElementsAre(0, 0, 1, 1, 2, 2));
    EXPECT_THAT(grid.by_node(), ElementsAre(0, 3, 4, 1, 2, 5));
    EXPECT_THAT(grid.by_local(), ElementsAre(0, 1, 3, 2, 4, 5));
    EXPECT_EQ(grid.rank_at(0, 1), 3);
}

TEST(NodeGrid, UnevenNodesSaySo) {
    const NodeGrid grid = make_node_grid(std::vector<int>{0, 0, 0, 5});
    EXPECT_FALSE(grid.even());
    EXPECT_EQ(grid.text(), "nodes of 3, 1 ranks");
}

}  // namespace
}  // namespace moesaic
