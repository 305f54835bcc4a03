// moesaic bound RUN --pac-bayes, the random-label probe, and which experts follow which file, as users get
// them.
#include <gmock/gmock.h>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

using testing::HasSubstr;

const Words kQuick{"--draws", "2", "--json"};

Words words(Words first, const Words& more) {
    first.insert(first.end(), more.begin(), more.end());
    return first;
}

TEST(PacBayes, IsMeasuredOnACheckpointTheSameOnEveryLayoutAndKept) {
    const ScratchFolder scratch;
    (void)train_tiny(scratch / "out", threads(2), {"train.micro_sequences=4"});
    const std::string run = scratch / "out/tiny";
    Json alone;
    for (const Ranks& ranks : {kAlone, mpirun(2), threads(4)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const CommandResult result = moesaic(words({"bound", run, "--pac-bayes"}, kQuick), ranks);
        ASSERT_EQ(result.code, 0) << result.text();
        ASSERT_EQ(lines_of(result.out).size(), 1u) << result.out;
        const Json record = Json::parse(result.out);
        EXPECT_EQ(record.at("step"), 20);
        EXPECT_EQ(record.at("prior_step"), 10) << "the newest within 0.7 of the first epoch";
        const Json bounds = record.at("bounds");
        ASSERT_EQ(bounds.size(), 8u) << "four forms, error and bits";
        for (const auto& [name, bound] : bounds.items()) {
            EXPECT_GT(bound.at("value"), bound.at("terms").at("empirical")) << name;
            EXPECT_GT(bound.at("details").at("units"), 3000) << name;
        }
        EXPECT_LE(bounds.at("pac_bayes_catoni").at("value"), 1);
        if (alone.empty()) alone = bounds;
        // Few draws pay so much that little is certified; what was measured tells layouts apart.
        for (const auto& [name, bound] : bounds.items())
            EXPECT_NEAR(bound.at("terms").at("empirical").get<double>(),
                        alone.at(name).at("terms").at("empirical").get<double>(), 1e-6)
                << name;
    }
    EXPECT_EQ(events(read_records(run), "bound").back().at("bounds"), alone);
    const CommandResult shown = moesaic({"bound", run});
    ASSERT_EQ(shown.code, 0) << shown.text();
    EXPECT_THAT(shown.out, HasSubstr("pac_bayes_catoni_bits"));
    EXPECT_THAT(shown.out, HasSubstr("prior_independent"));
    EXPECT_THAT(shown.out, HasSubstr("heldout"));
}

TEST(PacBayes, RefusesWhatHasNoBoundOrNoPrior) {
    const ScratchFolder scratch;
    (void)train_tiny(scratch / "out", kAlone, {"train.checkpoint_every=20", "train.keep_checkpoints=1"});
    expect_failure(moesaic(words({"bound", scratch / "out/tiny", "--pac-bayes"}, kQuick)), 2,
                   {"no earlier checkpoint of the run can be the prior"});
    expect_failure(moesaic({"bound", "--pac-bayes", "--experts", "8"}), 2,
                   {"--pac-bayes: needs a run", "--experts: does not go with"});
    (void)train_tiny(scratch / "other", kAlone, {"run.seed=2"});
    expect_failure(moesaic({"bound", scratch / "out/tiny", "--pac-bayes", "--prior",
                            scratch / "other/tiny/checkpoints/step-00000010"}),
                   2, {"another seed"});
    (void)train_tiny(scratch / "resumed", kAlone, {"run.seed=2", "train.checkpoint_every=5"},
                     {"--resume", scratch / "out/tiny/checkpoints/step-00000020", "--set", "train.steps=30"});
    expect_failure(moesaic(words({"bound", scratch / "resumed/tiny", "--pac-bayes", "--prior",
                                  scratch / "resumed/tiny/checkpoints/step-00000025"},
                                 kQuick)),
                   2, {"one of them was resumed with such"});
}

TEST(DigitsCertificate, IsBelowSixPercent) {
    const ScratchFolder scratch;
    const CommandResult result =
        moesaic({"train", "configs/digits.yaml", "--out", scratch / "out"}, threads(2));
    ASSERT_EQ(result.code, 0) << result.text();
    const Json last = events(read_records(scratch / "out/digits"), "eval").back();
    EXPECT_LT(last.at("heldout_error"), 0.035);
    const Json certificate = last.at("bounds").at("heldout");
    EXPECT_EQ(certificate.at("details").at("delta"), 0.05 / 2) << "the only look";
    EXPECT_LT(certificate.at("value"), 0.06);
}

TEST(LookAhead, CertifiesWhereNothingIsHeldOut) {
    const ScratchFolder scratch;
    const auto records = train_tiny(scratch / "out", threads(2), {"task.data.validation=0"});
    const Json last = events(records, "eval").back();
    EXPECT_FALSE(last.at("bounds").contains("heldout"));
    for (const char* name : {"heldout_lookahead", "heldout_lookahead_bits"}) {
        const Json bound = last.at("bounds").at(name);
        EXPECT_EQ(bound.at("details").at("units"), 16) << "train_unseen";
        EXPECT_EQ(bound.at("details").at("delta"), 0.05 / 6) << "the second look";
        EXPECT_GT(bound.at("value"), bound.at("terms").at("empirical"));
    }
    EXPECT_NEAR(last.at("bounds").at("heldout_lookahead").at("terms").at("empirical").get<double>(),
                last.at("losses").at("train_unseen").at("error").get<double>(), 1e-12);
    EXPECT_THAT(read_text(scratch / "out/tiny/log.rank0.txt"), HasSubstr("that training will come to"));
}

TEST(RandomLabels, AreFittedByHeartAndSaySo) {
    const ScratchFolder scratch;
    const CommandResult result =
        moesaic({"train", "configs/digits.yaml", "--out", scratch / "out", "--set",
                 "task.data.random_labels=true", "--set", "train.steps=200", "--set", "train.eval_every=200",
                 "--set", "generalization.probe_sequences=64"},
                threads(2));
    ASSERT_EQ(result.code, 0) << result.text();
    const Json last = events(read_records(scratch / "out/digits"), "eval").back();
    EXPECT_GT(last.at("measured").at("random_label_fit").at(0), 0.2) << "above chance on what it has seen";
    EXPECT_NEAR(last.at("heldout_error").get<double>(), 0.9, 0.06) << "chance on what it has not";
    expect_failure(
        moesaic({"train", "configs/tiny.yaml", "--check", "--set", "task.data.random_labels=true"}), 2,
        {"has no meaning for task.kind lm"});
}

TEST(Domains, AreRecordedTheSameOnEveryLayout) {
    Json alone;
    double complexity_alone = 0;
    for (const Ranks& ranks : {kAlone, threads(4), mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const ScratchFolder scratch;
        const auto records = train_tiny(scratch / "out", ranks);
        const Json evaluation = events(records, "eval").back();
        const Json layers = evaluation.at("domain_experts");
        ASSERT_EQ(layers.size(), 2u);
        for (const Json& layer : layers) {
            EXPECT_EQ(layer.at("share").size(), 4u) << "the four files of quad";
            EXPECT_GT(layer.at("mutual_information"), 0);
            EXPECT_GE(layer.at("p_value"), 1.0 / 200);
        }
        const Json margins = evaluation.at("measured").at("margin_quantiles_heldout");
        ASSERT_EQ(margins.size(), 5u);
        EXPECT_LT(margins.at(0), margins.at(4));
        const double complexity = evaluation.at("measured").at("head_complexity").at(0);
        EXPECT_GT(complexity, 0);
        if (alone.empty()) complexity_alone = complexity;
        EXPECT_NEAR(complexity, complexity_alone, 1e-6 * complexity_alone);
        if (alone.empty()) alone = {layers, margins};
        EXPECT_EQ(Json({layers, margins}), alone) << "no bit depends on the layout";
    }
}

}  // namespace
}  // namespace moesaic::e2e
