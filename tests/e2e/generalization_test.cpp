// What a run says of data it has not met: certificates, shards and the alarms of the gap, as users get them.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <fstream>

#include "runtime/base/philox.h"
#include "runtime/metrics/certificates.h"
#include "runtime/metrics/paired_change.h"
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

using testing::HasSubstr;

/// By step, the named certificate of the step records.
std::map<i64, Json> certificates(const std::vector<Json>& records, const std::string& name) {
    std::map<i64, Json> by_step;
    for (const Json& record : events(records, "step")) {
        if (record.at("bounds").contains(name)) by_step[record.at("step")] = record.at("bounds").at(name);
    }
    return by_step;
}

/// `count` letters of 80, drawn evenly.
std::string random_text(const char* name, u64 count) {
    const Philox random(1, name);
    std::string text;
    for (u64 i = 0; i < count; ++i) text += static_cast<char>('+' + static_cast<int>(80 * random.uniform(i)));
    return text;
}

const Words kEveryStep{"train.log_every=1"};

TEST(Certificate, IsPrintedFromFreshDataAndTheSameOnEveryLayout) {
    std::map<i64, Json> alone;
    for (const Ranks& ranks : {kAlone, threads(3), mpirun(2), mpirun(4)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const ScratchFolder scratch;
        const auto records = train_tiny(scratch / "out", ranks, kEveryStep);
        const auto bits = certificates(records, "prequential_bits");
        ASSERT_EQ(bits.size(), 12u) << "from step 9 on: the first window opens after 64 of 8 a step";
        EXPECT_EQ(bits.begin()->first, 9);
        EXPECT_EQ(bits.at(20).at("details").at("units"), 64) << "the window of 64 to 128 is shown";
        for (const auto& [step, bound] : bits) {
            EXPECT_GT(bound.at("value"), bound.at("terms").at("empirical"));
            EXPECT_LT(bound.at("value"), 12);
        }
        if (alone.empty()) alone = bits;
        EXPECT_EQ(bits, alone) << "no bit depends on the layout";
        EXPECT_EQ(certificates(records, "prequential").size(), 12u);
        const std::string log = read_text(scratch / "out/tiny/log.rank0.txt");
        EXPECT_THAT(log, HasSubstr("  error <= "));
        EXPECT_THAT(log, HasSubstr("  certificate: error at most "));
        EXPECT_THAT(log, HasSubstr(" met for the first time)"));
        EXPECT_THAT(log, HasSubstr("On new data the model is wrong in "));
        const Json untrained = events(records, "eval").front();
        EXPECT_GT(untrained.at("heldout_loss"), 5);
        EXPECT_TRUE(untrained.at("bounds").empty()) << "nobody wants one, and it would cost the others";
        EXPECT_TRUE(untrained.at("train_unseen_loss").is_null());
        EXPECT_EQ(events(records, "eval")[1].at("bounds").at("heldout").at("details").at("delta"), 0.05 / 2)
            << "the first look";
    }
}

TEST(Certificate, GoesOnAfterAResume) {
    const ScratchFolder scratch;
    const auto straight = train_tiny(scratch / "out", threads(2), kEveryStep);
    const auto resumed = train_tiny(scratch / "other", kAlone, kEveryStep,
                                    {"--resume", scratch / "out/tiny/checkpoints/step-00000010"});
    for (const char* name : {"prequential", "prequential_bits"}) {
        auto expected = certificates(straight, name);
        std::erase_if(expected, [](const auto& one) { return one.first <= 10; });
        EXPECT_EQ(certificates(resumed, name), expected);
    }
    const Json last = events(straight, "eval").back(), again = events(resumed, "eval").back();
    EXPECT_EQ(last.at("bounds").at("heldout"), again.at("bounds").at("heldout")) << "looks are counted on";
    EXPECT_EQ(last.at("bounds").at("heldout").at("details").at("delta"), 0.05 / 6) << "the second look";

    const auto other = train_tiny(scratch / "seed", kAlone, {"run.seed=7"},
                                  {"--resume", scratch / "out/tiny/checkpoints/step-00000010"});
    EXPECT_TRUE(certificates(other, "prequential").empty());
    EXPECT_THAT(events(other, "eval").back().at("prequential_off"),
                "the run was resumed with other data, or in another order");
}

TEST(Certificate, OfACheckpointIsTheRunsLookOrAStatementByItself) {
    const ScratchFolder scratch;
    const auto records = train_tiny(scratch / "out", kAlone,
                                    {"train.steps=25", "train.eval_every=15", "train.checkpoint_every=5"});
    const auto evaluate = [&](int step, const Ranks& ranks, const Words& more = {}) {
        Words words{"eval", checkpoint_of(scratch / "out", step), "--json"};
        words.insert(words.end(), more.begin(), more.end());
        const CommandResult result = moesaic(words, ranks);
        EXPECT_EQ(result.code, 0) << result.text();
        return Json::parse(result.out);
    };
    for (const int look : {1, 2}) {
        const Json own = events(records, "eval")[static_cast<std::size_t>(look)];
        const Json found = evaluate(own.at("step"), threads(2), {"--set", "cpu.threads=1"});
        EXPECT_EQ(found.at("look"), look);
        for (const char* field : {"look", "bounds", "gaps", "unseen_difference", "meaning"})
            EXPECT_EQ(found.at(field), own.at(field)) << field << ": said twice, and paid for once";
    }
    const Words other_shard{"--set", "generalization.heldout_sequences=48"};
    for (const Json& alone : {evaluate(10, kAlone), evaluate(20, threads(2)),
                              evaluate(25, kAlone, other_shard), evaluate(25, kAlone, {"--top-k", "1"})}) {
        EXPECT_TRUE(alone.at("look").is_null());
        EXPECT_EQ(alone.at("bounds").at("heldout").at("details").at("delta"), 0.05) << "shared with none";
        EXPECT_THAT(alone.at("meaning"), HasSubstr("This is none of the run's looks: each limit"));
    }
    EXPECT_EQ(evaluate(20, kAlone), evaluate(20, kAlone)) << "the same again costs nothing";
    EXPECT_TRUE(events(records, "eval")[0].at("look").is_null()) << "step 0 of a run from scratch";
    const std::string by_itself = moesaic({"eval", checkpoint_of(scratch / "out", 20)}).out;
    EXPECT_THAT(by_itself, HasSubstr(", by itself ["));
    EXPECT_THAT(moesaic({"eval", checkpoint_of(scratch / "out", 25)}).out,
                HasSubstr(", at all looks of the run at once ["));
}

bool has_heldout_bound(const Json& record) {
    for (const auto& [name, bound] : record.at("bounds").items())
        if (name.starts_with("heldout")) return true;
    return false;
}

Json evaluate(const std::string& checkpoint, const Words& overrides = {}) {
    Words words{"eval", checkpoint, "--json"};
    for (const std::string& one : overrides) words.insert(words.end(), {"--set", one});
    const CommandResult result = moesaic(words);
    EXPECT_EQ(result.code, 0) << result.text();
    return Json::parse(result.out);
}

void expect_nothing_of_new_data(const Json& record) {
    EXPECT_FALSE(has_heldout_bound(record)) << record.at("bounds");
    EXPECT_THAT(record.at("heldout_off"), HasSubstr("with another split of them"));
    EXPECT_THAT(record.at("meaning"), HasSubstr("Nothing is said of new data: the weights were trained on"));
    EXPECT_THAT(record.at("meaning"), testing::Not(HasSubstr("On new data the model is")));
    for (const char* field : {"gap", "gap_low", "train_unseen_loss", "heldout_change", "unseen_difference"})
        EXPECT_TRUE(record.at(field).is_null()) << field;
    EXPECT_TRUE(record.at("gaps").empty());
    EXPECT_FALSE(record.at("bounds").contains("published")) << "m is not known";
    EXPECT_FALSE(record.at("heldout_loss").is_null()) << "a loss of these windows it is";
}

TEST(Certificate, OfHeldOutDataNeedsTheSplitThatWasTrainedWith) {
    const ScratchFolder scratch;
    const auto records = train_tiny(scratch / "out", kAlone);
    EXPECT_TRUE(has_heldout_bound(events(records, "eval").back()));
    EXPECT_EQ(events(records, "eval").back().at("heldout_off"), "");
    const std::string other_split = "task.data.validation=0.9";
    expect_nothing_of_new_data(evaluate(checkpoint_of(scratch / "out", 20), {other_split}));

    const auto other = train_tiny(scratch / "other", kAlone, {other_split},
                                  {"--resume", checkpoint_of(scratch / "out", 10)});
    expect_nothing_of_new_data(events(other, "eval").back());
    EXPECT_THAT(read_text(scratch / "other/tiny/log.rank0.txt"), HasSubstr("Nothing is said of new data"));
    const auto back = train_tiny(scratch / "back", kAlone, {"train.steps=25"},
                                 {"--resume", checkpoint_of(scratch / "other", 20)});
    expect_nothing_of_new_data(events(back, "eval").back());  // what was held out first was trained on since
    expect_nothing_of_new_data(evaluate(checkpoint_of(scratch / "other", 20)));

    const CommandResult digits =
        moesaic({"train", "configs/digits.yaml", "--out", scratch / "out", "--set", "train.steps=30"});
    ASSERT_EQ(digits.code, 0) << digits.text();
    expect_nothing_of_new_data(evaluate(scratch / "out/digits", {"task.data.split_seed=2"}));
}

TEST(Certificate, OfWhatIsAheadNeedsTheOrderAndAllThatWasMet) {
    const ScratchFolder scratch;
    const std::string text = scratch / "small.txt";
    std::ofstream(text) << random_text("small", 64 * 300 + 1);  // some 270 windows train
    const Words small{"task.data.path=" + text, "train.steps=10", "train.batch_sequences=32",
                      "train.checkpoint_every=1", "generalization.probe_sequences=32"};
    (void)train_tiny(scratch / "out", kAlone, small);
    Words smaller = small;
    smaller.insert(smaller.end(), {"train.batch_sequences=8", "train.steps=15", "train.eval_every=15"});
    const auto resumed =
        train_tiny(scratch / "other", kAlone, smaller, {"--resume", checkpoint_of(scratch / "out", 10)});
    const Json last = events(resumed, "eval").back();
    EXPECT_TRUE(last.at("bounds").contains("heldout")) << "what is held out was met by no step";
    EXPECT_FALSE(last.at("bounds").contains("heldout_lookahead")) << "ten steps of 32 have met all";
    EXPECT_TRUE(last.at("train_unseen_loss").is_null());
    EXPECT_FALSE(last.at("gap").is_null());
    EXPECT_THAT(last.at("prequential_off"), HasSubstr("train.batch_sequences"));
    const Words pac_bayes{"--pac-bayes", "--draws", "2", "--prior"};
    Words command{"bound", scratch / "other/tiny"};
    command.insert(command.end(), pac_bayes.begin(), pac_bayes.end());
    command.push_back(checkpoint_of(scratch / "other", 14));
    expect_failure(moesaic(command), 2, {"the prior of step 14 has met all"});

    const Json other_order = evaluate(scratch / "out/tiny/checkpoints/step-00000001", {"run.seed=7"});
    EXPECT_TRUE(other_order.at("bounds").contains("heldout"));
    EXPECT_TRUE(other_order.at("gap").is_null());
    EXPECT_TRUE(other_order.at("train_unseen_loss").is_null());
    EXPECT_THAT(other_order.at("meaning"), HasSubstr("No gap is told"));
    EXPECT_THAT(other_order.at("seen_off"), HasSubstr("in another order"));
}

TEST(Certificate, OfFreshDataIsForItsSmoothingAndDelta) {
    const ScratchFolder scratch;
    (void)train_tiny(scratch / "out", kAlone);
    const std::string checkpoint = checkpoint_of(scratch / "out", 20);
    EXPECT_TRUE(evaluate(checkpoint).at("bounds").contains("prequential_bits"));
    for (const char* change : {"generalization.smoothing=0.9", "generalization.delta=0.000001"}) {
        const Json record = evaluate(checkpoint, {change});
        EXPECT_FALSE(record.at("bounds").contains("prequential")) << change;
        EXPECT_FALSE(record.at("bounds").contains("prequential_bits")) << change;
        EXPECT_THAT(record.at("prequential_off"), HasSubstr("generalization.smoothing or")) << change;
        EXPECT_TRUE(record.at("bounds").contains("heldout")) << change;
    }
}

TEST(Certificate, SaysWhyThereIsNone) {
    const ScratchFolder scratch;
    const auto records =
        train_tiny(scratch / "out", kAlone, {"model.moe.capacity={factor: 1.25}", "train.log_every=1"});
    EXPECT_TRUE(certificates(records, "prequential").empty());
    const Json evaluation = events(records, "eval").back();
    EXPECT_THAT(evaluation.at("prequential_off"), HasSubstr("a capacity drops choices"));
    EXPECT_TRUE(evaluation.at("bounds").contains("heldout"));
    EXPECT_EQ(occurrences(read_text(scratch / "out/tiny/log.rank0.txt"), "no certificate from fresh data"),
              1);
}

TEST(Certificate, EndsWithTheFirstEpoch) {
    const ScratchFolder scratch;
    const std::string text = scratch / "small.txt";
    std::ofstream(text) << std::string(64 * 100 + 1, 'a');  // 100 windows, of which 100 train
    const auto records = train_tiny(
        scratch / "out", kAlone, {"train.log_every=1", "task.data.path=" + text, "task.data.validation=0"});
    const auto bounds = certificates(records, "prequential");
    ASSERT_TRUE(bounds.contains(12)) << "96 units";
    EXPECT_EQ(bounds.at(12).at("details").at("units"), 32);
    EXPECT_EQ(bounds.rbegin()->first, 12) << "step 13 meets a window again";
    EXPECT_EQ(events(records, "eval").back().at("bounds").at("prequential"), bounds.at(12))
        << "the last word";
    EXPECT_EQ(bounds.at(12).at("details").at("until_step"), 12);
    EXPECT_FALSE(events(records, "eval").back().at("bounds").contains("heldout"));
    EXPECT_TRUE(events(records, "eval").back().at("heldout_loss").is_null());
}

struct Planted {
    std::string training, heldout;
    int steps = 200;
};
/// A run on windows of 16 letters, batches of 16.
std::vector<Json> run_planted(const Planted& planted) {
    const ScratchFolder scratch;
    const std::string text = planted.training + planted.heldout, path = scratch / "planted.txt";
    std::ofstream(path) << text;
    const double share =
        (static_cast<double>(planted.heldout.size()) + 0.5) / static_cast<double>(text.size());
    return train_tiny(
        scratch / "out", threads(2),
        {"task.data.path=" + path, "task.data.seq_len=16", fmt::format("task.data.validation={}", share),
         fmt::format("train.steps={}", planted.steps), fmt::format("train.eval_every={}", planted.steps / 8),
         "train.batch_sequences=16", "train.micro_sequences=8", "train.checkpoint_every=1000",
         "train.log_every=50", "optimizer.lr=0.02", "optimizer.schedule.kind=constant", "model.layers=1",
         "generalization.probe_sequences=128", "metrics.alarms.heldout_rise=off",
         "metrics.alarms.changed_expert=off", "metrics.alarms.entropy=off",
         "metrics.alarms.load_max_over_mean=off", "metrics.alarms.dead_experts=off",
         "metrics.alarms.loss_spike=off"});
}
std::vector<std::string> alarms_of(const std::vector<Json>& records) {
    std::vector<std::string> kinds;
    for (const Json& record : events(records, "alarm")) kinds.push_back(record.at("kind"));
    return kinds;
}

TEST(GapAlarms, ALeakedHeldOutShardIsNoticedWithinTheFirstEpoch) {
    const std::string heldout = random_text("held out", 512), other = random_text("training", 16 * 2000);
    std::string copies;
    for (int i = 0; i < 40; ++i) copies += heldout;
    const auto leaked = run_planted({other + copies, heldout});
    EXPECT_THAT(alarms_of(leaked), testing::Contains("leak"));
    EXPECT_LT(events(leaked, "eval").back().at("heldout_loss"),
              events(leaked, "eval")[7].at("train_unseen_loss").get<double>() * 0.9);

    const auto clean = run_planted({other + random_text("more", copies.size()), heldout});
    EXPECT_THAT(alarms_of(clean), testing::IsEmpty()) << "one epoch of the same size, without the leak";
}

TEST(Certificate, OfAModelThatKnowsNothingIsThatItIsWrong) {
    const ScratchFolder scratch;
    const CommandResult result =
        moesaic({"train", "configs/digits.yaml", "--out", scratch / "out", "--set", "model.init_std=1e-30",
                 "--set", "optimizer.lr=1e-30", "--set", "train.steps=2", "--set", "train.eval_every=2",
                 "--set", "train.checkpoint_every=2", "--set", "optimizer.schedule.warmup=1"});
    ASSERT_EQ(result.code, 0) << result.text();
    const Json last = events(read_records(scratch / "out/digits"), "eval").back();
    EXPECT_EQ(last.at("heldout_error"), 1) << "all logits tie";
    EXPECT_EQ(last.at("losses").at("heldout").at("error"), 1);
    EXPECT_EQ(last.at("bounds").at("heldout").at("value"), 1);
    EXPECT_THAT(last.at("meaning"), HasSubstr("wrong in 100.0 % of its answers"));
}

TEST(Certificate, GapsOfEveryLookHoldAtOnce) {
    const ScratchFolder scratch;
    const auto records = train_tiny(scratch / "out", kAlone, {"optimizer.lr=1e-30", "train.eval_every=2"});
    std::map<i64, double> widths;  // by look, of the same losses
    for (const Json& record : events(records, "eval")) {
        if (!record.at("gap_low").is_null() && !record.at("look").is_null())
            widths[record.at("look")] =
                record.at("gap_high").get<double>() - record.at("gap_low").get<double>();
    }
    ASSERT_EQ(widths.rbegin()->first, 10);
    const auto quantile = [](i64 look) { return two_sided_quantile(delta_of_statement(0.05, look)); };
    for (const auto& [look, width] : widths)
        EXPECT_NEAR(width / widths.at(10), quantile(look) / quantile(10), 1e-6) << look;
    EXPECT_GT(widths.size(), 3U);
    EXPECT_THAT(events(records, "eval").back().at("meaning"), HasSubstr("(95 % for all looks at once)"));
}

TEST(GapAlarms, LearningByHeartIsNoticed) {
    const auto records = run_planted({random_text("training", 16 * 128), random_text("held out", 512), 240});
    EXPECT_THAT(alarms_of(records), testing::Contains("overfitting_onset"));
    EXPECT_THAT(alarms_of(records), testing::Not(testing::Contains("leak")));
    EXPECT_THAT(alarms_of(records), testing::Not(testing::Contains("bound_violated")));
    const Json last = events(records, "eval").back();
    EXPECT_GT(last.at("gap_low"), 0.3);
    EXPECT_GT(last.at("gaps").at("smoothed_bits").at("low"), 0);
    EXPECT_THAT(last.at("meaning"), HasSubstr("is what it has fitted of those alone"));
}

}  // namespace
}  // namespace moesaic::e2e
