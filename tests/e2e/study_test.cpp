// moesaic study: a grid through the binary, taken up again after a kill, and its page.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "runtime/machine/programs.h"
#include "tests/e2e/command.h"
#include "tests/support/source_folder.h"

namespace moesaic::e2e {
namespace {

namespace fs = std::filesystem;

/// Two points and two seeds of the tiny configuration, on one and on two ranks.
std::string small_study(const std::string& out) {
    return "name: small\nout: " + out +
           "\nbase: configs/tiny.yaml\nseeds: 2\njobs: 2\n"
           "set: {train.steps: 6, train.eval_every: 6, train.checkpoint_every: 6, train.log_every: 1}\n"
           "zip: {model.moe.experts: [2, 4], ranks: [1, 2]}\n"
           "claims: [{name: loss, kind: difference, statement: fewer experts, of: heldout_loss, "
           "first: {model.moe.experts: 2}, second: {model.moe.experts: 4}, expect: less}]\n";
}

TEST(Study, RunsResumesAndReports) {
    const ScratchFolder scratch;
    write_text(scratch / "small.yaml", small_study(scratch / "out"));
    const CommandResult first = moesaic({"study", scratch / "small.yaml"});
    ASSERT_EQ(first.code, 0) << first.text();
    const std::string folder = scratch / "out/small";
    const Words csv = lines_of(read_text(folder + "/results.csv"));
    ASSERT_EQ(csv.size(), 5u);
    EXPECT_EQ(csv[0].rfind("model.moe.experts,ranks,seed,", 0), 0u) << csv[0];
    EXPECT_EQ(occurrences(read_text(folder + "/claims.jsonl"), "\"verdict\":\"inconclusive\""), 1)
        << "two pairs";

    // A run that was cut off, and one that is missing: those two again, the others untouched, the same
    // numbers.
    const std::string table = read_text(folder + "/results.jsonl");
    const auto kept = fs::last_write_time(folder + "/runs/cell-001-seed-1/metrics.jsonl");
    fs::remove_all(folder + "/runs/cell-001-seed-2");
    const std::string cut = folder + "/runs/cell-002-seed-1/metrics.jsonl", whole = read_text(cut);
    write_text(cut, whole.substr(0, whole.size() / 2));
    const CommandResult again = moesaic({"study", scratch / "small.yaml", "--resume"});
    ASSERT_EQ(again.code, 0) << again.text();
    EXPECT_EQ(occurrences(again.out, "4 runs, 2 of them done already"), 1) << again.text();
    EXPECT_EQ(fs::last_write_time(folder + "/runs/cell-001-seed-1/metrics.jsonl"), kept);
    const auto losses_of = [](const std::string& text) {
        std::vector<Json> found;
        for (const std::string& line : lines_of(text)) found.push_back(Json::parse(line).at("heldout_loss"));
        return found;
    };
    EXPECT_EQ(losses_of(read_text(folder + "/results.jsonl")), losses_of(table));

    if (!find_program("gnuplot", search_path())) return;
    const CommandResult page = moesaic({"report", folder});
    ASSERT_EQ(page.code, 0) << page.text();
    EXPECT_GE(occurrences(read_text(folder + "/report.html"), "<svg"), 2);
}

TEST(Study, ItsColumnsAreWhatRunsRecorded) {
    const ScratchFolder scratch;
    write_text(
        scratch / "one.yaml",
        "name: one\nout: " + (scratch / "out") +
            "\nbase: configs/teacher.yaml\nseeds: 2\nseed_keys: [task.data.split_seed]\n"
            "set: {train.steps: 2, train.eval_every: 2, train.batch_sequences: 500, "
            "optimizer.schedule.warmup: 1}\n"
            "grid: {model.moe.experts: [4]}\n"
            "claims: [{name: gap, kind: slope, statement: words, of: gap_error, against: train_loss}]\n");
    ASSERT_EQ(moesaic({"study", scratch / "one.yaml"}).code, 0);
    const std::string folder = scratch / "out/one", run = folder + "/runs/cell-001-seed-2";
    EXPECT_EQ(occurrences(read_text(run + "/config.yaml"), "split_seed: 2"), 1);
    // A later evaluation that tells of domains, two layers of them.
    const auto layer = [](const char* information, const char* p_value) {
        return std::string("{\"mutual_information\":") + information +
               ",\"shuffled_information\":0.125,\"p_value\":" + p_value + "}";
    };
    const std::string records = read_text(run + "/metrics.jsonl");
    const std::size_t end = records.find("{\"event\":\"end\"");
    ASSERT_NE(end, std::string::npos);
    write_text(run + "/metrics.jsonl",
               records.substr(0, end) + "{\"event\":\"eval\",\"step\":2,\"domain_experts\":[" +
                   layer("0.5", "0.2") + "," + layer("0.25", "0.4") + "]}\n" + records.substr(end));
    ASSERT_EQ(moesaic({"study", scratch / "one.yaml", "--resume"}).code, 0);
    const Words lines = lines_of(read_text(folder + "/results.jsonl"));
    ASSERT_EQ(lines.size(), 2u);
    const Json first = Json::parse(lines[0]), second = Json::parse(lines[1]);
    EXPECT_EQ(second.at("training_samples"), 1000);
    EXPECT_NEAR(second.at("gap_error").get<double>(),
                second.at("heldout_error").get<double>() - second.at("train_error").get<double>(), 1e-9);
    EXPECT_NE(second.at("heldout_error"), first.at("heldout_error"));
    EXPECT_EQ(second.at("domain_information"), 0.375);
    EXPECT_EQ(second.at("domain_information_shuffled"), 0.125);
    EXPECT_EQ(second.at("domain_p_value"), 0.4) << "the worst of the layers";
    EXPECT_TRUE(first.at("domain_information").is_null());
    EXPECT_EQ(lines_of(read_text(folder + "/cells.csv"))[0],
              "model.moe.experts,runs,gap_error,gap_error.deviation");
}

TEST(Study, ForetellsFromItsResults) {
    const ScratchFolder scratch;
    const std::string study = scratch / "law.yaml";
    write_text(study,
               "name: law\nout: " + (scratch / "out") +
                   "\nbase: configs/tiny.yaml\ngrid: {model.moe.experts: [2, 4]}\nclaims: [{name: law, kind: "
                   "predictor, statement: words, of: gap_error, samples: training_samples, experts: "
                   "model.moe.experts, top_k: model.moe.top_k}]\n");
    const Words words{"study",     study,
                      "--predict", "experts=64,top_k=2,samples=1000",
                      "--predict", "experts=4,top_k=2,samples=700"};
    const CommandResult early = moesaic(words);
    EXPECT_EQ(early.code, 2);
    EXPECT_EQ(occurrences(early.err, "nothing to predict from; run `moesaic study"), 1) << early.text();
    std::string results;
    for (const int experts : {2, 4, 8, 16})
        for (const int top_k : {1, 2})
            for (const int samples : {500, 1000})
                results += fmt::format(
                    "{{\"model.moe.experts\":{0},\"model.moe.top_k\":{1},\"task.data.samples\":{2},\"seed\":"
                    "1,\"training_samples\":{2},"
                    "\"gap_error\":{3}}}\n",
                    experts, top_k, samples, .01 * experts * 1000 / samples);
    fs::create_directories(scratch / "out/law");
    write_text(scratch / "out/law/results.jsonl", results);
    const CommandResult told = moesaic(words);
    EXPECT_EQ(told.code, 0) << told.text();
    EXPECT_EQ(occurrences(told.out, "16 cells of 8 (experts, top_k) pairs"), 1) << told.text();
    EXPECT_EQ(occurrences(told.out, "beyond what was measured"), 1) << told.text();
    EXPECT_FALSE(fs::exists(scratch / "out/law/runs")) << "nothing is run";
    const CommandResult wrong = moesaic({"study", study, "--predict", "experts=2,top_k=8,samples=1000"});
    EXPECT_EQ(wrong.code, 2) << wrong.text();
    EXPECT_EQ(occurrences(wrong.err, "8 of 2 experts cannot be active"), 1) << wrong.text();
}

TEST(Study, ASignalEndsItsRunsAndResumeGoesOn) {
    const ScratchFolder scratch;
    std::string study = small_study(scratch / "out");
    study.replace(study.find("train.steps: 6"), 14, "train.steps: 400");
    write_text(scratch / "small.yaml", study);
    Command command(moesaic_words({"study", scratch / "small.yaml"}));
    const std::string first = scratch / "out/small/runs/cell-001-seed-1/metrics.jsonl";
    while (command.running() && occurrences(read_text(first), "\"event\":\"step\",\"step\":3,") == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    command.signal(SIGTERM);
    const CommandResult stopped = command.wait();
    EXPECT_EQ(stopped.code, 75) << stopped.text();
    const std::string left = read_text(first);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_EQ(read_text(first), left) << "the run goes on without the study";
    EXPECT_FALSE(fs::exists(scratch / "out/small/results.csv"));
    if (have_mpi())
        expect_failure(moesaic({"study", scratch / "small.yaml"}, mpirun(2)), 2, {"start it without mpirun"});
}

/// Processes with `text` on their command line, this one aside.
int processes_with(const std::string& text) {
    int count = 0;
    for (const auto& entry : fs::directory_iterator("/proc")) {
        const std::string name = entry.path().filename().string();
        if (name.find_first_not_of("0123456789") != std::string::npos || name == std::to_string(::getpid()))
            continue;
        count += read_text(entry.path().string() + "/cmdline").find(text) != std::string::npos ? 1 : 0;
    }
    return count;
}

TEST(Study, AKilledOneLeavesNoRunBehindAndResumeGoesOn) {
    const ScratchFolder scratch;
    const std::string study = small_study(scratch / "out");
    std::string longer = study;
    longer.replace(study.find("train.steps: 6"), 14, "train.steps: 400");
    write_text(scratch / "small.yaml", longer);
    const std::string runs = scratch / "out/small/runs";
    Command command(moesaic_words({"study", scratch / "small.yaml"}));
    while (command.running() && occurrences(read_text(runs + "/cell-001-seed-1/metrics.jsonl"),
                                            "\"event\":\"step\",\"step\":3,") == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_GE(processes_with(runs), 1);
    // While it runs, a second one is refused; it does not touch what the first one writes.
    expect_failure(moesaic({"study", scratch / "small.yaml"}), 2,
                   {"a study, or a run that one left behind, still writes there"});
    EXPECT_FALSE(fs::exists(scratch / "out/small.old-1"));
    command.signal(SIGKILL);
    (void)command.wait();
    for (int i = 0; i < 1000 && processes_with(runs) > 0; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(processes_with(runs), 0);
    write_text(scratch / "small.yaml", study);  // shorter runs are enough from here on
    const CommandResult again = moesaic({"study", scratch / "small.yaml", "--resume"});
    EXPECT_EQ(again.code, 0) << again.text();
    EXPECT_EQ(lines_of(read_text(scratch / "out/small/results.csv")).size(), 5u);
}

TEST(Study, AFailedRunIsARowAndAnExitCode) {
    const ScratchFolder scratch;
    std::string study = small_study(scratch / "out");
    study.replace(study.find("ranks: [1, 2]"), 13, "task.data.path: [configs/data/quad, /absent]");
    write_text(scratch / "small.yaml", study);
    const CommandResult result = moesaic({"study", scratch / "small.yaml"});
    EXPECT_EQ(result.code, 1) << result.text();
    EXPECT_EQ(occurrences(read_text(scratch / "out/small/results.csv"), "failed with 2"), 2);
    EXPECT_EQ(occurrences(result.out, "2 of them not done"), 1) << result.text();
}

TEST(Study, SaysWhatIsWrong) {
    const ScratchFolder scratch;
    std::string study = small_study(scratch / "out");
    study.replace(study.find("model.moe.experts: [2, 4], ranks"), 32, "model.moe.expertz: [2, 4], ranks");
    write_text(scratch / "small.yaml", study);
    expect_failure(moesaic({"study", scratch / "small.yaml"}), 2, {"did you mean 'experts'?"});
    EXPECT_FALSE(fs::exists(scratch / "out"));
}

TEST(Study, EveryShippedOneRunsAtItsSmokeSize) {
    const ScratchFolder scratch;
    for (const auto& entry : fs::directory_iterator(std::string(MOESAIC_SOURCE_DIR) + "/configs/studies")) {
        if (entry.path().extension() != ".yaml") continue;
        SCOPED_TRACE(entry.path().string());
        const CommandResult result =
            moesaic({"study", entry.path().string(), "--smoke", "--out", scratch.path()});
        EXPECT_EQ(result.code, 0) << result.text();
        if (entry.path().stem() != "violation") continue;
        EXPECT_EQ(occurrences(result.out, "reproduced      published_exceeded"), 1) << result.text();
        EXPECT_EQ(occurrences(result.out, "reproduced      corrected_holds"), 1) << result.text();
    }
}

}  // namespace
}  // namespace moesaic::e2e
