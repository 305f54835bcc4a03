// A rank that stops answering: the others say which, with everybody's last collectives, and the job ends.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string contents(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// The process that trains as this rank into that folder; 0 where there is none.
pid_t process_of_rank(int rank, const std::string& out) {
    const std::string wanted = fmt::format("OMPI_COMM_WORLD_RANK={}", rank);
    for (const fs::directory_entry& entry : fs::directory_iterator("/proc")) {
        const std::string name = entry.path().filename();
        if (name.find_first_not_of("0123456789") != std::string::npos) continue;
        if (contents(entry.path() / "cmdline").find(out) == std::string::npos) continue;
        const std::string environment = '\0' + contents(entry.path() / "environ");
        if (environment.find('\0' + wanted + '\0') != std::string::npos) return std::stoi(name);
    }
    return 0;
}

TEST(Hang, ARankThatStopsIsNamedWithEveryRanksLastCollectives) {
    if (!have_mpi()) GTEST_SKIP() << "built without MPI";
    const ScratchFolder scratch;
    const std::string out = scratch / "out", run = out + "/tiny";
    CommandOptions options;
    options.environment = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                           {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
                           {"OMPI_MCA_mpi_yield_when_idle", "1"}};
    Command command(
        moesaic_words(tiny(out, {"train.steps=100000", "train.log_every=1", "parallel.timeout_seconds=3",
                                 "train.eval_every=100000", "train.checkpoint_every=100000"}),
                      mpirun(3)),
        options);
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (command.running() && std::chrono::steady_clock::now() < give_up &&
           occurrences(contents(run + "/metrics.jsonl"), R"("event":"step","step":3,)") == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const pid_t victim = process_of_rank(1, out);
    ASSERT_GT(victim, 0);
    ASSERT_EQ(kill(victim, SIGSTOP), 0);
    const CommandResult result = command.wait();
    kill(victim, SIGKILL);  // mpirun has done so
    EXPECT_EQ(result.code, 1) << result.text();
    EXPECT_THAT(result.text(), HasSubstr("no answer for 3 s"));
    EXPECT_THAT(result.text(), HasSubstr("rank 1 left no record"));
    EXPECT_THAT(result.text(), HasSubstr("been in all_"));
    EXPECT_THAT(contents(run + "/flight.rank0.txt"), HasSubstr("\ngroup\treplicas\t"));
    EXPECT_TRUE(fs::exists(run + "/flight.rank2.txt"));
}

}  // namespace
}  // namespace moesaic::e2e
