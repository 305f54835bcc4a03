// The plan of a cluster, as its users ask for it.
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

std::string gpus(const ScratchFolder& scratch, int nodes) {
    const std::string file = scratch / "cluster.yaml";
    write_text(file, "nodes: " + std::to_string(nodes) + "\nranks_per_node: 8\ndevice: h100\n");
    return file;
}

TEST(Plan, RanksLayoutsOfManyGpus) {
    const ScratchFolder scratch;
    const Words words{"plan", "configs/tiny.yaml", "--cluster", gpus(scratch, 4), "--rows", "2"};
    const CommandResult table = moesaic(words);
    ASSERT_EQ(table.code, 0) << table.text();
    EXPECT_EQ(occurrences(table.out, "PREDICTION for h100"), 1);
    Words json = words;
    json.emplace_back("--json");
    const CommandResult result = moesaic(json);
    ASSERT_EQ(result.code, 0) << result.text();
    const Json plan = Json::parse(result.out);
    EXPECT_EQ(plan["ok"], true);
    EXPECT_EQ(plan["measured_here"], false);
    ASSERT_GT(plan["rows"].size(), 10u);
    double before = plan["rows"][0]["tokens_per_s"];
    for (const Json& row : plan["rows"]) {
        EXPECT_LE(row["tokens_per_s"].get<double>(), before);
        before = row["tokens_per_s"];
        double sum = 0;
        for (const Json& part : row["seconds"]) sum += part.get<double>();
        EXPECT_NEAR(1e3 * sum, row["step_ms"].get<double>(), 1e-9 * row["step_ms"].get<double>());
    }
    EXPECT_TRUE(plan["rows"][0]["memory_bytes"].is_number());
}

TEST(Plan, MemoryOfThisMachineIsWhatTrainingTakes) {
    const ScratchFolder scratch;
    const std::string file = scratch / "cluster.yaml";
    write_text(file, "ranks_per_node: 2\ndevice: cpu\n");
    const CommandResult result =
        moesaic({"plan", "configs/tiny.yaml", "--cluster", file, "--ranks", "2", "--set", "model.width=96",
                 "--set", "model.moe.hidden=192", "--json"});
    ASSERT_EQ(result.code, 0) << result.text();
    const Json plan = Json::parse(result.out);
    EXPECT_EQ(plan["measured_here"], true);
    for (const Json& row : plan["rows"]) {
        const std::string expert = "parallel.expert=" + row["expert_parallel"].dump();
        const auto records =
            train_tiny(scratch / ("out" + row["expert_parallel"].dump()), threads(2),
                       {"train.steps=5", "model.width=96", "model.moe.hidden=192", expert, "cpu.threads=1",
                        "parallel.exchange=" + row["exchange"].get<std::string>()});
        const double measured = events(records, "step").back()["memory_bytes"];
        EXPECT_NEAR(row["memory_bytes"].get<double>() / measured, 1, 0.05) << row;
    }
}

TEST(Plan, MistakesAreSaidAtOnce) {
    const ScratchFolder scratch;
    const std::string file = scratch / "cluster.yaml";
    write_text(file, "nodes: 2\ndevice: tpu\nranks: 4\n");
    expect_failure(moesaic({"plan", "configs/tiny.yaml", "--cluster", file}), 2,
                   {file + ":2: device: 'tpu' is no profile", file + ":3: ranks: is no key of a cluster"});
    EXPECT_EQ(moesaic({"plan", "configs/tiny.yaml"}).code, 2);
    if (have_mpi())
        expect_failure(moesaic({"plan", "configs/tiny.yaml", "--cluster", gpus(scratch, 1)}, mpirun(2)), 2,
                       {"plan: one process plans for all ranks"});
}

}  // namespace
}  // namespace moesaic::e2e
