// Alarms of whole runs: what stops a run, what only says something, and what a user finds afterwards.
#include "runtime/checkpoint/checkpoint_folder.h"
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

/// No real load is as even as this asks for.
constexpr const char* kPlanted = "metrics.alarms.entropy={threshold: 1, steps: 3, action: stop}";

TEST(Alarms, StopEndsTheRunWithACheckpointAndExitCode1) {
    for (const Ranks& ranks : {kAlone, threads(2), mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const ScratchFolder scratch;
        const std::string out = scratch / "out";
        const CommandResult result = moesaic(tiny(out, {kPlanted}), ranks);
        ASSERT_EQ(result.code, 1) << result.text();
        EXPECT_EQ(occurrences(result.err, "stopped by alarm entropy of layer 0: the load's evenness is"), 1)
            << result.text();
        const auto records = read_records(out + "/tiny");
        const auto alarms = events(records, "alarm");
        ASSERT_EQ(alarms.size(), 2u) << "one of each layer";
        EXPECT_EQ(alarms[0].at("kind"), "entropy");
        EXPECT_EQ(alarms[0].at("step"), 3);
        EXPECT_EQ(alarms[0].at("layer"), 0);
        EXPECT_EQ(alarms[0].at("action"), "stop");
        EXPECT_LT(alarms[0].at("value"), 1);
        EXPECT_EQ(alarms[0].at("threshold"), 1);
        EXPECT_EQ(records.back().at("event"), "end");
        EXPECT_EQ(records.back().at("status"), "stopped by alarm");
        EXPECT_EQ(records.back().at("step"), 3);
        EXPECT_EQ(find_latest(out + "/tiny"), out + "/tiny/checkpoints/" + step_folder_name(3));
    }
}

/// What a job has counted towards an alarm is in its checkpoints: kills and returns do not put it off.
TEST(Alarms, StopARunThatDiesMoreOftenThanTheyCount) {
    const Words planted{"metrics.alarms.load_max_over_mean={threshold: 1.05, steps: 6, action: stop}",
                        "train.steps=12", "train.checkpoint_every=4", "train.async_checkpoints=false",
                        "train.nonfinite=rollback"};
    const ScratchFolder scratch;
    const auto alarms_of = [&](const std::string& out) {
        std::vector<Json> alarms = events(read_records(scratch / out + "/tiny"), "alarm");
        std::erase_if(alarms, [](const Json& one) { return one.at("kind") == "nonfinite"; });
        return alarms;
    };
    const auto train = [&](const std::string& out, const Words& more) {
        return moesaic(tiny(scratch / out, planted, more));
    };
    ASSERT_EQ(train("straight", {}).code, 1);
    EXPECT_EQ(train("killed", {"--inject", "kill:rank=0,step=5"}).code, 137);
    const CommandResult again = train("killed", {"--resume", "auto", "--inject", "kill:rank=0,step=9"});
    ASSERT_EQ(again.code, 1) << again.text();
    const CommandResult back = train("back", {"--inject", "nan:layer=1,expert=3,step=5"});
    ASSERT_EQ(back.code, 1) << back.text();
    const std::vector<Json> straight = alarms_of("straight");
    ASSERT_EQ(straight.size(), 2u) << "one of each layer";
    EXPECT_EQ(straight[0].at("step"), 6);
    for (const std::string out : {"killed", "back"}) {
        SCOPED_TRACE(out);
        EXPECT_EQ(alarms_of(out), straight);
        const Json end = read_records(scratch / out + "/tiny").back();
        EXPECT_EQ(end.at("status"), "stopped by alarm");
        EXPECT_EQ(end.at("step"), 6);
    }
}

/// Imported weights are looked at before the first step, and these know what is held out: letters a.
TEST(Alarms, StopIsHeededBeforeTheFirstStep) {
    const ScratchFolder scratch;
    std::string letters;
    for (int i = 0; i < 30000; ++i) letters += static_cast<char>('b' + i * i % 23);
    write_text(scratch / "known.txt", std::string(30000, 'a'));
    write_text(scratch / "leaked.txt", letters + std::string(3400, 'a'));
    const Words small{"train.steps=10", "task.data.seq_len=16", "metrics.alarms.entropy=off",
                      "metrics.alarms.load_max_over_mean=off", "optimizer.lr=1e-2"};
    Words known = small;
    known.push_back("task.data.path=" + (scratch / "known.txt"));
    (void)train_tiny(scratch / "out", threads(2), known);
    const std::string hf = scratch / "hf", run = scratch / "imported";
    ASSERT_EQ(moesaic({"convert", "export", scratch / "out/tiny", hf}).code, 0);
    const CommandResult imported = moesaic({"convert", "import", hf, run, "--set", "task.data.seq_len=16",
                                            "--set", "task.data.path=" + (scratch / "leaked.txt"), "--set",
                                            "train.steps=20", "--set", "optimizer.schedule.warmup=2"});
    ASSERT_EQ(imported.code, 0) << imported.text();
    const CommandResult result =
        moesaic({"train", run + "/config.yaml", "--resume", run, "--set", "metrics.alarms.leak.action=stop"});
    EXPECT_EQ(result.code, 1) << result.text();
    EXPECT_EQ(occurrences(result.err, "step 0, all ranks: stopped by alarm leak"), 1) << result.text();
    const auto records = read_records(run);
    EXPECT_EQ(records.back().at("status"), "stopped by alarm");
    EXPECT_EQ(records.back().at("step"), 0);
    EXPECT_TRUE(events(records, "step").empty());
}

TEST(Alarms, CheckpointAndWarnLetItGoOn) {
    const ScratchFolder scratch;
    const auto records = train_tiny(scratch / "out", threads(2),
                                    {"metrics.alarms.entropy={threshold: 1, steps: 3, action: checkpoint}",
                                     "metrics.alarms.loss_spike={threshold: 1, steps: 1}"});
    EXPECT_EQ(losses(records).rbegin()->first, 20);
    bool saved = false;
    for (const Json& record : events(records, "checkpoint")) saved = saved || record.at("step") == 3;
    EXPECT_TRUE(saved);
    bool spiked = false;
    for (const Json& record : events(records, "alarm"))
        spiked = spiked || (record.at("kind") == "loss_spike" && record.at("layer").is_null());
    EXPECT_TRUE(spiked) << "of twenty losses one is above the one before";
}

TEST(Alarms, NoneOfAHealthyRunAndWhatItRecords) {
    const ScratchFolder scratch;
    const auto records = train_tiny(scratch / "out", threads(2));
    EXPECT_TRUE(events(records, "alarm").empty());
    const auto experts = events(records, "experts");
    ASSERT_EQ(experts.size(), 10u) << "two layers in steps 1, 5, 10, 15, 20";
    for (const Json& record : experts) {
        EXPECT_EQ(record.at("load").size(), 4u);
        EXPECT_EQ(record.at("idle_steps").size(), 4u);
        EXPECT_GT(record.at("evenness"), 0.3);
        EXPECT_GE(record.at("max_over_mean"), 1);
        EXPECT_GT(record.at("router_entropy"), 1.0);
        EXPECT_GE(record.at("first_weight_mean"), 0.5);
        EXPECT_EQ(record.at("dropped_fraction"), 0);
        EXPECT_TRUE(record.at("bias_span").is_null());
        EXPECT_EQ(record.at("alarms"), Json::array());
    }
    const auto evaluations = events(records, "eval");
    ASSERT_EQ(evaluations.size(), 3u);
    EXPECT_EQ(evaluations[0].at("routing_changed"), Json::array());
    ASSERT_EQ(evaluations[1].at("routing_changed").size(), 2u);
    EXPECT_GT(evaluations[1].at("routing_changed")[1].at("share"), 0);
    const std::string log = read_text(scratch / "out/tiny/log.rank0.txt");
    EXPECT_EQ(occurrences(log, "raised alarms"), 0) << log;
    EXPECT_EQ(occurrences(log, "routers in step 20"), 1) << log;
}

TEST(Alarms, MistakesInTheirSectionAreNamed) {
    const CommandResult result = moesaic(
        {"train", "configs/tiny.yaml", "--check", "--set", "metrics.alarms.entropy=loud", "--set",
         "metrics.alarms.dead_experts.action=panic", "--set", "metrics.alarms.entropi={threshold: 1}"});
    expect_failure(result, 2,
                   {"metrics.alarms.entropy: 'loud' is unknown; off or a mapping",
                    "metrics.alarms.dead_experts.action: 'panic' is unknown",
                    "metrics.alarms.entropi: is no key of this section; did you mean 'entropy'?"});
}

/// Many small experts, shared ones, layers without: on more ranks than one, and the same there.
TEST(Shapes, FineGrainedExpertsTrain) {
    const Words words{"train", "configs/fine_grained.yaml",
                      "--set", "train.steps=4",
                      "--set", "train.batch_sequences=6",
                      "--set", "train.micro_sequences=2",
                      "--set", "optimizer.schedule.warmup=1",
                      "--set", "train.log_every=1",
                      "--set", "generalization.heldout_sequences=4",
                      "--set", "generalization.probe_sequences=2"};
    std::map<i64, double> one;
    for (const Ranks& ranks : {kAlone, threads(4), mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const ScratchFolder scratch;
        Words all = words;
        all.insert(all.end(), {"--out", scratch / "out"});
        const CommandResult result = moesaic(all, ranks);
        ASSERT_EQ(result.code, 0) << result.text();
        const auto by_step = losses(read_records(scratch / "out/fine_grained"));
        ASSERT_EQ(by_step.size(), 4u);
        if (one.empty()) one = by_step;
        EXPECT_EQ(by_step, one);
    }
}

}  // namespace
}  // namespace moesaic::e2e
