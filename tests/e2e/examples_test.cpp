// Tables and generated examples through the binary: training, resuming, evaluating, and what is said about
// mistakes.
#include <cmath>
#include <filesystem>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

/// `train configs/NAME.yaml` into `out`.
Words train(const std::string& name, const std::string& out, const Words& overrides, const Words& more = {}) {
    Words words{"train", "configs/" + name + ".yaml", "--out", out};
    for (const std::string& one : overrides) words.insert(words.end(), {"--set", one});
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

std::vector<Json> trained(const std::string& name, const std::string& out, const Ranks& ranks,
                          const Words& overrides, const Words& more = {}) {
    const CommandResult result = moesaic(train(name, out, overrides, more), ranks);
    EXPECT_EQ(result.code, 0) << result.text();
    return read_records(out + "/" + name);
}

const Words kTwentySteps{"train.steps=20", "optimizer.schedule.warmup=5", "train.log_every=1",
                         "train.checkpoint_every=10", "train.eval_every=10"};

class Examples : public testing::TestWithParam<const char*> {};

/// Two layouts and a resumed run give the same losses to the last bit, and eval says what the run recorded.
TEST_P(Examples, TrainResumeAndEvaluateAlike) {
    const std::string name = GetParam();
    const ScratchFolder scratch;
    const auto alone = trained(name, scratch / "alone", kAlone, kTwentySteps);
    const auto others = trained(name, scratch / "threads", threads(4), kTwentySteps);
    EXPECT_EQ(losses(others), losses(alone));
    EXPECT_EQ(losses(alone).size(), 20u);
    if (can_run(mpirun(2))) {
        const auto resumed = trained(name, scratch / "resumed", mpirun(2), kTwentySteps,
                                     {"--resume", scratch / "alone/" + name + "/checkpoints/step-00000010"});
        std::map<i64, double> late = losses(alone);
        std::erase_if(late, [](const auto& one) { return one.first <= 10; });
        EXPECT_EQ(losses(resumed), late);
    }
    ASSERT_FALSE(events(alone, "eval").empty());
    const Json last = events(alone, "eval").back();
    EXPECT_GT(last.at("heldout_error").get<double>(), 0);
    const CommandResult eval = moesaic({"eval", scratch / "alone/" + name, "--json"}, threads(2));
    ASSERT_EQ(eval.code, 0) << eval.text();
    const Json found = Json::parse(eval.out);
    for (const char* key : {"heldout_loss", "heldout_error", "train_probe_loss"})
        EXPECT_EQ(found.at(key), last.at(key));
}

INSTANTIATE_TEST_SUITE_P(Configs, Examples,
                         testing::Values("digits", "weather", "teacher", "momlp", "sraven", "skills"),
                         [](const auto& test) { return std::string(test.param); });

TEST(ExamplesMistakes, AreAllSaidAtOnce) {
    const ScratchFolder scratch;
    const CommandResult result =
        moesaic(train("digits", scratch / "out",
                      {"model.kind=transformer", "task.data.tokenizer=none", "task.data.format=jsonl"}));
    expect_failure(result, 2,
                   {"model.kind: a transformer does not learn task.kind classification; one of: mlp, momlp",
                    "task.data.tokenizer: has no meaning for task.kind classification",
                    "task.data.format: 'jsonl' is no format of data for task.kind classification"});
    write_text(scratch / "bad.csv", "1,2,a\n1,x,b\n");
    const CommandResult bad =
        moesaic(train("digits", scratch / "out", {"task.data.path=" + scratch / "bad.csv"}));
    expect_failure(bad, 2, {"bad.csv:2: column '2' is 'x', no number"});
    const CommandResult cells = moesaic(train("momlp", scratch / "out", {"train.batch_sequences=50"}));
    expect_failure(cells, 2, {"train.batch_sequences: 50 examples are not as many of each of 16 cells"});
    const CommandResult ranks = moesaic(train("momlp", scratch / "out", {}), threads(3));
    expect_failure(ranks, 2, {"3 ranks cannot share 16 cells of a momlp evenly"});
}

TEST(ExamplesMistakes, LanguageModelsCommandsSayThatTheyAreThat) {
    const ScratchFolder scratch;
    trained("digits", scratch / "out", kAlone, {"train.steps=1", "optimizer.schedule.warmup=0"});
    const std::string run = scratch / "out/digits";
    expect_failure(moesaic({"generate", run, "--prompt", "a"}), 2, {"generate: is for language models"});
    expect_failure(moesaic({"data", "dump", "configs/digits.yaml", "--steps", "1", "-o", scratch / "a.npy"}),
                   2, {"data dump: is for language models, and task.kind is classification"});
    expect_failure(moesaic({"convert", "export", run, scratch / "hf", "--to", "hf"}), 2,
                   {"task.kind is classification; only language models have other forms"});
    const CommandResult check = moesaic(train("digits", scratch / "out", {}, {"--check"}));
    EXPECT_EQ(check.code, 0) << check.text();
    EXPECT_EQ(occurrences(check.out, "1438 training and 359 held-out examples of 64 features"), 1)
        << check.out;
}

}  // namespace
}  // namespace moesaic::e2e
