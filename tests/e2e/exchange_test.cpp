// How rows cross changes no bit of a run: in shared memory, in parts, or both.
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

TEST(ExchangeRun, WaysOfRowsGiveTheSameRun) {
    const ScratchFolder scratch;
    const Words short_run{"train.steps=6", "train.log_every=1", "train.checkpoint_every=6"};
    const std::string end = "/tiny/checkpoints/step-00000006";
    const auto flat = train_tiny(scratch / "flat", kAlone, short_run);
    const StoredTensors weights = read_tensors(scratch / ("flat" + end));
    const std::vector<Words> ways{{"parallel.exchange=shared_memory"},
                                  {"parallel.exchange=shared_memory", "parallel.receive_budget=0.5"},
                                  {"parallel.chunks=3"}};
    int number = 0;
    for (const Ranks& ranks : {mpirun(2), mpirun(4), threads(4)}) {
        if (!can_run(ranks)) continue;
        for (const Words& way : ways) {
            SCOPED_TRACE(name_of(ranks) + " " + way.front());
            Words overrides = short_run;
            overrides.insert(overrides.end(), way.begin(), way.end());
            const std::string folder = "run" + std::to_string(number++);
            EXPECT_EQ(losses(train_tiny(scratch / folder, ranks, overrides)), losses(flat));
            expect_same_bytes(read_tensors(scratch / (folder + end)), weights);
        }
    }
}

TEST(ExchangeRun, SaysThatPartsAreFewerThanAskedFor) {
    const ScratchFolder scratch;
    const CommandResult result = moesaic({"train", "configs/tiny.yaml", "--out", scratch / "run", "--set",
                                          "train.steps=6", "--set", "parallel.chunks=64"},
                                         threads(2));
    EXPECT_EQ(result.code, 0) << result.text();
    EXPECT_EQ(occurrences(result.text(), "rows travel in 2 of 64 parts, as many as a rank has experts"), 1)
        << result.text();
    EXPECT_EQ(occurrences(result.text(), "begin with a rank's own rows"), 0) << result.text();
    const CommandResult of_one_expert = moesaic({"train", "configs/tiny.yaml", "--out", scratch / "one",
                                                 "--set", "train.steps=6", "--set", "parallel.chunks=64"},
                                                threads(4));
    EXPECT_EQ(of_one_expert.code, 0) << of_one_expert.text();
    EXPECT_EQ(
        occurrences(of_one_expert.text(), "rows travel in 4 of 64 parts, as many as ranks share the experts"),
        1)
        << of_one_expert.text();
    EXPECT_EQ(occurrences(of_one_expert.text(), "begin with a rank's own rows"), 1) << of_one_expert.text();
}

TEST(ExchangeRun, CheckCountsSharedMemory) {
    const CommandResult result = moesaic(
        {"train", "configs/tiny.yaml", "--check", "--set", "parallel.exchange=shared_memory"}, threads(2));
    EXPECT_EQ(result.code, 0) << result.text();
    EXPECT_EQ(occurrences(result.out, "rows in memory that ranks share"), 1) << result.text();
}

}  // namespace
}  // namespace moesaic::e2e
