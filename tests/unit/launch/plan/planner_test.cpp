// Plans: which layouts there are, their memory and bytes against what training takes, and clusters from YAML.
#include "launch/plan/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/check_report.h"
#include "launch/memory_estimate.h"
#include "launch/trainer.h"
#include "runtime/base/error.h"
#include "runtime/machine/roofline.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

RunSetup run_of(const std::string& name, std::vector<std::string> overrides = {}) {
    const std::string root = MOESAIC_SOURCE_DIR;
    overrides.push_back("task.data.path=" + root + "/configs/data/quad");
    return load_run(root + "/configs/" + name, overrides);
}

ClusterConfig cluster_of(i64 nodes, i64 ranks_per_node, const std::string& device = "h100") {
    ClusterConfig cluster;
    cluster.file = "c.yaml";
    cluster.nodes = nodes;
    cluster.ranks_per_node = ranks_per_node;
    cluster.device = *std::ranges::find(device_profiles(), device, &DeviceProfile::name);
    return cluster;
}

ClusterConfig parse(const std::string& text, std::string& mistakes) {
    const ScratchFolder folder;
    write_text(folder / "c.yaml", text);
    Diagnostics diagnostics;
    const ClusterConfig cluster = load_cluster(folder / "c.yaml", diagnostics);
    mistakes = diagnostics.text();
    return cluster;
}

TEST(StepWork, FlopsAreThoseOfTheModel) {
    for (const char* name : {"tiny.yaml", "quad.yaml"}) {
        const RunSetup run = run_of(name);
        const StepWork work = step_work(run, {}, false);
        const double all = work.projection_flops + work.score_flops + work.expert_flops + work.router_flops +
                           work.head_flops;
        const double tokens = static_cast<double>(run.config.train.batch_sequences * run.spec.seq_len);
        EXPECT_NEAR(all / (model_flops_per_token(run.spec) * tokens), 1, 1e-12) << name;
    }
}

TEST(StepWork, RanksShareIt) {
    const RunSetup run = run_of("quad.yaml");  // eight micro-batches
    const StepWork one = step_work(run, {}, false), four = step_work(run, {4, 2, 1}, false),
                   many = step_work(run, {16, 8, 1}, false);
    EXPECT_EQ(one.micro_steps, 8);
    EXPECT_EQ(four.micro_steps, 2);
    EXPECT_EQ(many.micro_steps, 1);
    EXPECT_NEAR(four.expert_flops, one.expert_flops / 4, 1);
    EXPECT_NEAR(many.expert_flops, one.expert_flops / 8, 1) << "half of the ranks have nothing to do";
    EXPECT_EQ(one.collectives, 0);
    EXPECT_EQ(one.replicated_sync_bytes, 0);
    EXPECT_GT(four.expert_sync_bytes, 0);
    EXPECT_EQ(step_work(run, {8, 8, 1}, false).expert_sync_bytes, 0);
}

TEST(StepWork, GradientsOfOneContributionAreTheirOwnSumsOnTheHost) {
    const RunSetup once = run_of("quad.yaml", {"train.micro_sequences=32"}), often = run_of("quad.yaml");
    const StepWork gpu = step_work(once, {}, false), host = step_work(once, {}, true);
    const ModelSpec& spec = once.spec;
    const auto weights =
        static_cast<double>(spec.feed_forward_parameters(spec.hidden) * spec.experts * spec.expert_layers());
    EXPECT_EQ(gpu.expert_weight_bytes, weights * (2 * 4 + 16));
    EXPECT_EQ(host.expert_weight_bytes, weights * (2 * 4 + 4));
    EXPECT_LT(host.folding_bytes, gpu.folding_bytes);
    EXPECT_EQ(step_work(often, {}, true).expert_weight_bytes, 8 * gpu.expert_weight_bytes);
    EXPECT_EQ(step_work(once, {2, 1, 1}, true).expert_weight_bytes, gpu.expert_weight_bytes);
}

TEST(Planner, WorldsFillNodesEvenly) {
    EXPECT_THAT(worlds_of(cluster_of(6, 4)), ElementsAre(1, 2, 4, 8, 12, 24));
    EXPECT_THAT(worlds_of(cluster_of(1, 1)), ElementsAre(1));
}

TEST(Planner, LayoutsFitRanksExpertsAndNodes) {
    RunSetup run = run_of("quad.yaml");
    const auto rows = plan_layouts(run, cluster_of(4, 4), {{}, "uniform", 3});
    int spanning = 0;
    for (const PlanRow& row : rows) {
        EXPECT_EQ(row.layout.ranks % row.layout.expert_parallel, 0);
        EXPECT_EQ(8 % row.layout.expert_parallel, 0);
        spanning += row.layout.expert_parallel > 4;
        EXPECT_GT(row.tokens_per_s, 0);
        EXPECT_EQ(row.row_bytes_cross_node > 0, row.layout.expert_parallel > 4);
        EXPECT_EQ(row.idle_ranks, std::max<i64>(0, row.layout.ranks - 8));
    }
    EXPECT_EQ(spanning, 2);  // 8 of 8 and of 16 ranks
    EXPECT_EQ(rows.size(), 1u + 2 + 3 + 4 + 4);
    EXPECT_TRUE(std::ranges::is_sorted(rows, std::greater<>(), &PlanRow::tokens_per_s));
    EXPECT_EQ(run.config.parallel, run_of("quad.yaml").config.parallel) << "the run is as it was";
}

/// Eight expert-parallel ranks of two slices each take two nodes of eight, though eight are on one.
TEST(Planner, SlicesOfExpertsSpreadAGroupOverNodes) {
    RunSetup run = run_of("quad.yaml", {"parallel.expert_tensor=2"});
    ClusterConfig cluster = cluster_of(2, 8);
    const auto exchange_seconds = [&] {
        for (const PlanRow& row : plan_layouts(run, cluster, {{16}, "uniform", 1})) {
            if (row.layout.expert_parallel != 8 || row.layout.expert_tensor != 2) continue;
            EXPECT_GT(row.row_bytes_cross_node, 0);
            return row.times.exchange;
        }
        ADD_FAILURE() << "no such layout";
        return 0.0;
    };
    const double fast = exchange_seconds();
    cluster.device.network.gb_per_s /= 100;
    EXPECT_GT(exchange_seconds(), 10 * fast) << "what crosses nodes takes the network";
}

TEST(Planner, MemoryAndBytesAreThoseOfCheck) {
    RunSetup run = run_of("tiny.yaml");
    const auto rows = plan_layouts(run, cluster_of(2, 2), {{4}, "uniform", 100});
    for (const PlanRow& row : rows) {
        run.spec.exchange.name = run.config.parallel.exchange = row.exchange;
        const int expert = static_cast<int>(row.layout.expert_parallel);
        ASSERT_TRUE(row.memory_bytes);
        EXPECT_EQ(*row.memory_bytes, estimate_memory(run, 4, expert, 2).pool_bytes());
        const TrafficEstimate traffic = estimate_traffic(run, 4, expert, 2, run.spec.exchange);
        EXPECT_EQ(row.row_bytes_same_node + row.row_bytes_cross_node, traffic.rows_to_others());
        EXPECT_EQ(row.gradient_bytes, traffic.gradients);
    }
    EXPECT_EQ(rows.size(), 3u);
}

TEST(Planner, WhatDoesNotFitComesLast) {
    RunSetup run = run_of("tiny.yaml");
    ClusterConfig small = cluster_of(1, 2);
    small.device.memory_gib = 1e-6;
    const auto rows = plan_layouts(run, small, {{}, "uniform", 2});
    for (const PlanRow& row : rows) EXPECT_FALSE(row.fits);
}

TEST(Planner, ThousandsOfRanks) {
    RunSetup run = run_of("tiny.yaml", {"model.moe.experts=64", "train.batch_sequences=16384"});
    const auto rows = plan_layouts(run, cluster_of(2048, 8), {{16384}, "zipf:1.0", 1});
    EXPECT_EQ(rows.size(), 7u);  // 1, 2, 4, ... 64
    EXPECT_TRUE(rows.front().memory_bytes);
    EXPECT_GT(rows.front().tokens_per_s, 0);
    EXPECT_GT(rows.back().fullest_over_mean * rows.front().fullest_over_mean, 1);
}

TEST(Planner, MistakesAreTheUsers) {
    RunSetup run = run_of("tiny.yaml");
    EXPECT_THROW((void)plan_layouts(run, cluster_of(1, 4), {{8}, "uniform", 1}), UserError);
    EXPECT_THROW((void)plan_layouts(run, cluster_of(1, 4), {{}, "no such pattern", 1}), UserError);
}

/// What the roofline on paper counts of a layer, `plan` counts too, and it promises no more than that allows.
TEST(Planner, ReadsTheRoofline) {
    RunSetup run = run_of("quad.yaml", {"train.precision=bf16"});
    const ModelSpec& spec = run.spec;
    const i64 tokens = run.config.train.batch_sequences * spec.seq_len;
    const MoeShape shape{"quad", tokens, spec.width, spec.hidden, spec.experts, spec.top_k, 0, 1};
    for (const GpuPeaks& gpu : gpu_peaks()) {
        SCOPED_TRACE(gpu.name);
        const ClusterConfig cluster = cluster_of(1, 1, std::string(gpu.profile));
        EXPECT_DOUBLE_EQ(cluster.device.bf16_tflops, 1e-12 * gpu.bf16_flops);
        EXPECT_DOUBLE_EQ(cluster.device.memory_gb_per_s, 1e-9 * gpu.memory_bytes);
        EXPECT_DOUBLE_EQ(cluster.device.node.gb_per_s, 1e-9 * gpu.nvlink_bytes);
        double flops = 0, seconds = 0;
        for (const KernelCost& cost : moe_layer_costs(shape, gpu.gpus_per_node)) {
            if (!cost.name.starts_with("experts")) continue;
            flops += 3.0 * spec.expert_layers() * cost.flops;  // forward, and twice as much back
            seconds += 3.0 * spec.expert_layers() * least_time(cost, gpu).seconds;
        }
        const auto rows = plan_layouts(run, cluster, {{1}, "uniform", 0});
        EXPECT_NEAR(rows.front().work.expert_flops / flops, 1, 1e-12);
        EXPECT_GT(rows.front().times.experts, seconds);
    }
}

TEST(ClusterFile, NumbersReplaceTheProfiles) {
    std::string mistakes;
    const ClusterConfig cluster = parse(
        "nodes: 16\nranks_per_node: 8\ndevice: {profile: h200, bf16_tflops: 800}\n"
        "node: {gb_per_s: 400}\nnetwork: {latency_us: 9, gb_per_s: 25}\n",
        mistakes);
    EXPECT_EQ(mistakes, "");
    EXPECT_EQ(cluster.ranks(), 128);
    EXPECT_EQ(cluster.device.bf16_tflops, 800);
    EXPECT_EQ(cluster.device.memory_gib, 141);
    EXPECT_EQ(cluster.device.node.gb_per_s, 400);
    EXPECT_EQ(cluster.device.network.gb_per_s, 25);
    EXPECT_TRUE(cluster.gives("device.bf16_tflops"));
    EXPECT_FALSE(cluster.gives("device.fp32_tflops"));
}

TEST(ClusterFile, EveryMistakeHasItsLine) {
    std::string mistakes;
    (void)parse("nodes: zero\nrank_per_node: 8\ndevice: h1000\nnode: {gb_per_s: -1}\nnetwork: fast\n",
                mistakes);
    EXPECT_THAT(mistakes, HasSubstr("c.yaml:1: nodes: 'zero' is no count"));
    EXPECT_THAT(mistakes,
                HasSubstr("c.yaml:2: rank_per_node: is no key of a cluster; did you mean 'ranks_per_node'?"));
    EXPECT_THAT(mistakes, HasSubstr("c.yaml:3: device: 'h1000' is no profile; one of h100, h200, b200, cpu"));
    EXPECT_THAT(mistakes, HasSubstr("c.yaml:4: node.gb_per_s: '-1' is no number above 0"));
    EXPECT_THAT(mistakes, HasSubstr("c.yaml:5: network: is not a mapping"));
    (void)parse("nodes: 4096\nranks_per_node: 8\ndevice: h100\n", mistakes);
    EXPECT_THAT(mistakes, HasSubstr("32768 ranks"));
    (void)parse("nodes: 2\n", mistakes);
    EXPECT_THAT(mistakes, HasSubstr("device: is missing"));
    (void)parse("nodes: [\n", mistakes);
    EXPECT_THAT(mistakes, HasSubstr("is not YAML"));
}

}  // namespace
}  // namespace moesaic
