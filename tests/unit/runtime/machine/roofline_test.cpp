// The roofline on paper: a layer whose numbers can be checked by hand, and the table of
// runtime/cuda/README.md.
#include "runtime/machine/roofline.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/golden_table.h"

namespace moesaic {
namespace {

const KernelCost& named(const std::vector<KernelCost>& costs, std::string_view name) {
    for (const KernelCost& cost : costs)
        if (cost.name == name) return cost;
    throw std::runtime_error("no kernel " + std::string(name));
}

TEST(Roofline, CountsOfALayerByHand) {
    // 10 tokens of width 4, hidden 6, 8 experts on 4 GPUs, 2 choices; 2 GPUs a node.
    const auto costs = moe_layer_costs({"small", 10, 4, 6, 8, 2, 0, 4}, 2);
    const KernelCost& up = named(costs, "experts: gate, up");
    EXPECT_EQ(up.flops, 2.0 * 20 * 12 * 4);
    EXPECT_EQ(up.memory_bytes, (20 * 4 + 2 * 4 * 12 + 20 * 12) * 2.0)
        << "rows, two experts' weights, results";
    const KernelCost& dispatch = named(costs, "dispatch");
    EXPECT_EQ(dispatch.nvlink_bytes, 20 * 4 * 2 * 0.25) << "a quarter of the rows goes to the other GPU here";
    EXPECT_EQ(dispatch.network_bytes, 20 * 4 * 2 * 0.5) << "half to the other node; a quarter stays";
    EXPECT_EQ(named(costs, "router logits").memory_bytes, (10 * 4 + 4 * 8) * 2.0 + 10 * 8 * 4);
}

TEST(Roofline, FlopsOfTheExpertsAreThoseOfTheActiveParameters) {
    for (const MoeShape& shape : roofline_shapes()) {
        double flops = 0;
        for (const KernelCost& cost : moe_layer_costs(shape, 8)) flops += cost.tensor_cores ? cost.flops : 0;
        const i64 active = (shape.top_k + shape.shared_experts) * 3 * shape.width * shape.hidden +
                           shape.width * shape.experts;
        EXPECT_DOUBLE_EQ(flops, 2.0 * static_cast<double>(active * shape.tokens)) << shape.name;
    }
}

TEST(Roofline, CountsOfTheBackwardByHand) {
    const auto costs = moe_layer_backward_costs({"small", 10, 4, 6, 8, 2, 0, 4}, 2);
    const KernelCost& input = named(costs, "experts: gate, up, input gradient");
    EXPECT_EQ(input.flops, 2.0 * 20 * 12 * 4);
    EXPECT_EQ(input.memory_bytes, (20 * 12 + 2 * 4 * 12 + 20 * 4) * 2.0)
        << "gradients of results, two experts' weights, gradients of rows";
    EXPECT_EQ(named(costs, "experts: gate, up, weight gradient").memory_bytes,
              (20 * 12 + 20 * 4) * 2.0 + 2 * 4 * 12 * 16.0)
        << "both operands; two experts' sums in f64, read and written";
    EXPECT_EQ(named(costs, "weighted sum, backward").memory_bytes, (10 + 2 * 20) * 4 * 2.0 + 20 * 12);
    EXPECT_EQ(named(costs, "dispatch, backward").network_bytes, 20 * 4 * 2 * 0.5);
}

TEST(Roofline, BackwardHasTwiceTheProductsOfTheForward) {
    for (const MoeShape& shape : roofline_shapes()) {
        double forward = 0, backward = 0;
        for (const KernelCost& cost : moe_layer_costs(shape, 8))
            forward += cost.tensor_cores ? cost.flops : 0;
        for (const KernelCost& cost : moe_layer_backward_costs(shape, 8)) {
            if (cost.name.ends_with("input gradient") || cost.name.ends_with("weight gradient"))
                backward += cost.flops;
        }
        EXPECT_DOUBLE_EQ(backward, 2 * forward) << shape.name;
    }
}

TEST(Roofline, CausalAttentionByHand) {
    // 8 tokens in sequences of 4, 2 query heads and 1 key head of 3 columns.
    const auto costs = model_costs({"small", 8, 4, 6, 8, 2, 0, 4, 2, 1, 3, 4, 10});
    EXPECT_EQ(named(costs, "attention").flops, 2 * 2.0 * 8 * 2 * 6) << "two products with 2 keys on average";
    EXPECT_EQ(named(costs, "attention").memory_bytes, 8 * (2 * 6 + 2 * 3) * 2.0 + 8 * 2 * 4);
    EXPECT_EQ(named(costs, "attention, backward").flops, 5 * 2.0 * 8 * 2 * 6);
    EXPECT_EQ(named(costs, "cross-entropy, backward").memory_bytes, 2 * 8 * 10 * 4.0 + 8 * 12);
}

/// What is measured is found by its name.
TEST(Roofline, NamesAreUnique) {
    std::set<std::string_view> names;
    const MoeShape& shape = roofline_shapes()[0];
    for (const auto& costs :
         {moe_layer_costs(shape, 8), moe_layer_backward_costs(shape, 8), model_costs(shape)}) {
        for (const KernelCost& cost : costs) EXPECT_TRUE(names.insert(cost.name).second) << cost.name;
    }
}

TEST(Roofline, TheLongestPartLimits) {
    const GpuPeaks gpu{"", "", 100, 10, 10, 10, 5, 1, 8, 0};
    EXPECT_EQ(least_time({.name = "", .flops = 200, .tensor_cores = true, .memory_bytes = 10}, gpu).limit,
              Limit::compute);
    EXPECT_EQ(least_time({.name = "", .flops = 20, .memory_bytes = 30}, gpu).limit, Limit::memory);
    const KernelTime link = least_time({.name = "", .nvlink_bytes = 20, .network_bytes = 3}, gpu);
    EXPECT_EQ(link.limit, Limit::nvlink);
    EXPECT_EQ(link.seconds, 4);
}

TEST(Roofline, TableOfTheReadme) {
    expect_golden_table("runtime/cuda/README.md", "roofline", roofline_table());
}

}  // namespace
}  // namespace moesaic
