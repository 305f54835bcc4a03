// Stopping on a signal: a checkpoint, exit code 75, and going on from there.
#include <chrono>
#include <csignal>
#include <thread>

#include "runtime/checkpoint/checkpoint_folder.h"
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

/// Enough steps that the signal comes before the last one.
int steps_on(const Ranks& ranks) {
    return ranks.kind == Ranks::Kind::mpirun ? 120 : 300;
}

Words long_run(const Ranks& ranks) {
    return {"train.steps=" + std::to_string(steps_on(ranks)), "train.log_every=1",
            "train.checkpoint_every=100000", "train.eval_every=100000"};
}

/// Starts a long run, sends `number` to what was started once step 3 is on record.
CommandResult stop_by(int number, const std::string& out, const Ranks& ranks) {
    CommandOptions options;
    options.environment = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                           {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
                           {"OMPI_MCA_mpi_yield_when_idle", "1"}};
    Command command(moesaic_words(tiny(out, long_run(ranks)), ranks), options);
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (command.running() && std::chrono::steady_clock::now() < give_up &&
           occurrences(read_text(out + "/tiny/metrics.jsonl"), R"("event":"step","step":3,)") == 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    command.signal(number);
    return command.wait();
}

void expect_stopped_and_resumable(const CommandResult& result, const std::string& out, const Ranks& ranks) {
    ASSERT_EQ(result.code, 75) << result.text();
    const auto stopped = read_records(out + "/tiny");
    const Json end = stopped.back();
    ASSERT_EQ(end.at("event"), "end");
    EXPECT_EQ(end.at("status"), "stopped");
    const i64 step = end.at("step");
    ASSERT_LT(step, steps_on(ranks));
    EXPECT_EQ(find_latest(out + "/tiny"), out + "/tiny/checkpoints/" + step_folder_name(step));
    EXPECT_EQ(losses(stopped).rbegin()->first, step);

    const auto resumed = train_tiny(out, ranks, long_run(ranks), {"--resume", "auto"});
    const auto by_step = losses(resumed);
    EXPECT_EQ(by_step.size(), static_cast<std::size_t>(steps_on(ranks)));
    for (const auto& [at, loss] : losses(stopped)) EXPECT_EQ(by_step.at(at), loss) << "step " << at;
    EXPECT_EQ(resumed.back().at("status"), "done");
}

TEST(Signal, UserSignalToMpirunStopsAllRanks) {
    if (!have_mpi()) GTEST_SKIP() << "built without MPI";
    const ScratchFolder scratch;
    const CommandResult result = stop_by(SIGUSR1, scratch / "out", mpirun(2));
    expect_stopped_and_resumable(result, scratch / "out", mpirun(2));
}

TEST(Signal, EitherSignalStopsASingleProcess) {
    for (const int number : {SIGTERM, SIGUSR1}) {
        SCOPED_TRACE(number);
        const ScratchFolder scratch;
        const CommandResult result = stop_by(number, scratch / "out", kAlone);
        expect_stopped_and_resumable(result, scratch / "out", kAlone);
    }
}

TEST(Signal, StopsRanksAsThreads) {
    const ScratchFolder scratch;
    const CommandResult result = stop_by(SIGTERM, scratch / "out", threads(3));
    expect_stopped_and_resumable(result, scratch / "out", threads(3));
}

}  // namespace
}  // namespace moesaic::e2e
