// Documents as the unit of certificates and intervals, as users get them.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "runtime/base/philox.h"
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

using testing::HasSubstr;

/// 700 documents of 1 to 120 letters, in two files; some longer than a window of 64 tokens.
class Documents : public testing::Test {
  protected:
    void SetUp() override {
        const Philox random(1, "documents");
        u64 drawn = 0;
        std::filesystem::create_directory(scratch_ / "data");
        for (const char* name : {"a", "b"}) {
            std::ofstream file(scratch_ / "data/" + name + ".jsonl");
            for (int line = 0; line < 350; ++line) {
                const auto length = 1 + static_cast<int>(120 * random.uniform(drawn++));
                const auto letter = static_cast<int>(20 * random.uniform(drawn++));
                std::string text;
                for (int i = 0; i < length; ++i) text += static_cast<char>('a' + letter + i % 3);
                file << "{\"text\": \"" << text << "\"}\n";
            }
        }
    }
    [[nodiscard]] Words with(const Words& more = {}) const {
        Words all{"task.data.path=" + scratch_ / "data", "task.data.validation=0.3", "train.log_every=1",
                  "generalization.heldout_sequences=400"};
        all.insert(all.end(), more.begin(), more.end());
        return all;
    }

    ScratchFolder scratch_;
};

/// What certificates and intervals a run recorded, without its times.
Json said(const std::vector<Json>& records) {
    Json all;
    for (const Json& record : events(records, "step")) all.push_back(record.at("bounds"));
    for (const Json& record : events(records, "eval")) {
        Json bounds;
        for (const char* name : {"heldout", "heldout_bits", "heldout_lookahead", "prequential_bits"})
            if (record.at("bounds").contains(name)) bounds[name] = record.at("bounds").at(name);
        all.push_back({bounds, record.at("gap"), record.at("gap_low"), record.at("gaps"), record.at("unit"),
                       record.at("unseen_difference"), record.at("gap_change"), record.at("losses")});
    }
    return all;
}

TEST_F(Documents, AreCountedTheSameOnEveryLayout) {
    Json alone;
    for (const Ranks& ranks : {kAlone, threads(2), threads(3), mpirun(2), threads(4), threads(8)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const ScratchFolder out;
        const auto records = train_tiny(out / "out", ranks, with());
        const Json run = events(records, "run").front(), last = events(records, "eval").back();
        EXPECT_EQ(run.at("unit"), "document");
        EXPECT_EQ(last.at("unit"), "document");
        const std::string log = read_text(out / "out/tiny/log.rank0.txt");
        EXPECT_THAT(log,
                    HasSubstr("unit of certificates and intervals: the document (the held-out shard has "));
        EXPECT_THAT(log, HasSubstr(" held-out documents)"));
        EXPECT_THAT(log, HasSubstr(" documents met for the first time"));
        // 30 % of 700 documents, but for those that a cut divides and those that no window reaches.
        const Json heldout = last.at("bounds").at("heldout");
        EXPECT_NEAR(heldout.at("details").at("units").get<double>(), 210, 20);
        EXPECT_GT(heldout.at("value"), heldout.at("terms").at("empirical"));
        EXPECT_TRUE(last.at("bounds").contains("prequential_bits"));
        EXPECT_NEAR(last.at("losses").at("heldout").at("raw").get<double>(),
                    last.at("heldout_loss").get<double>(), 1e-9)
            << "means over targets, as the loss is";
        EXPECT_NEAR(last.at("gap").get<double>(),
                    last.at("heldout_loss").get<double>() - last.at("train_probe_loss").get<double>(), 1e-12);
        if (alone.is_null()) alone = said(records);
        EXPECT_EQ(said(records), alone) << "no bit depends on the layout";
    }
}

TEST_F(Documents, AreWhatBoundsCountAndTheirTokensWhatIsRouted) {
    const std::string text = scratch_ / "short.jsonl";
    std::ofstream file(text);
    for (int line = 0; line < 4000; ++line) file << "{\"text\": \"abcdefghijklmn" << line % 10 << "\"}\n";
    file.close();
    for (const char* unit : {"document", "sequence"}) {
        SCOPED_TRACE(unit);
        const ScratchFolder out;
        const auto records = train_tiny(
            out / "out", kAlone, {"task.data.path=" + text, std::string("generalization.unit=") + unit});
        const Json details =
            events(records, "eval").back().at("bounds").at("corrected_softmax").at("details");
        EXPECT_EQ(details.at("routed_rows"), 20 * 8 * 64) << "steps, sequences, tokens";
        const bool documents = unit == std::string("document");
        EXPECT_NEAR(details.at("samples").get<double>(), documents ? 160 * 4 : 160, documents ? 20 : 0)
            << "documents of 15 letters and an end";
    }
}

TEST_F(Documents, GoOnAfterAResume) {
    const auto straight = train_tiny(scratch_ / "out", threads(2), with());
    const std::string checkpoint = scratch_ / "out/tiny/checkpoints/step-00000010";
    const auto resumed = train_tiny(scratch_ / "other", kAlone, with(), {"--resume", checkpoint});
    const auto after = [](const std::vector<Json>& records) {
        std::map<i64, Json> bounds;
        for (const Json& record : events(records, "step"))
            if (record.at("step") > 10) bounds[record.at("step")] = record.at("bounds");
        return bounds;
    };
    EXPECT_EQ(after(resumed), after(straight));
    EXPECT_EQ(events(resumed, "eval").back().at("bounds").at("heldout"),
              events(straight, "eval").back().at("bounds").at("heldout"));
    const auto other = train_tiny(scratch_ / "unit", kAlone, with({"generalization.unit=sequence"}),
                                  {"--resume", checkpoint});
    EXPECT_EQ(events(other, "eval").back().at("prequential_off"),
              "it was begun with another unit (generalization.unit)");
    EXPECT_EQ(events(other, "run").front().at("unit"), "sequence");
}

TEST_F(Documents, AreRefusedWhereThereAreNone) {
    expect_failure(
        moesaic({"train", "configs/tiny.yaml", "--check", "--set", "generalization.unit=document"}), 2,
        {"generalization.unit: document: the held-out shard has 0 documents"});
    expect_failure(
        moesaic({"train", "configs/digits.yaml", "--check", "--set", "generalization.unit=document"}), 2,
        {"has no meaning for task.kind classification"});
    const CommandResult check = moesaic({"train", "configs/tiny.yaml", "--check"});
    ASSERT_EQ(check.code, 0) << check.text();
    EXPECT_THAT(check.out,
                HasSubstr("unit of certificates and intervals: the sequence (the held-out shard has 0"));
}

TEST_F(Documents, ArePacBayesUnitsToo) {
    (void)train_tiny(scratch_ / "out", threads(2), with());
    const std::string run = scratch_ / "out/tiny";
    const CommandResult result = moesaic({"bound", run, "--pac-bayes", "--draws", "2", "--prior",
                                          run + "/checkpoints/step-00000000", "--json"});
    ASSERT_EQ(result.code, 0) << result.text();
    const Json bound = Json::parse(result.out).at("bounds").at("pac_bayes_bernstein");
    EXPECT_NEAR(bound.at("details").at("units").get<double>(), 490, 20) << "each training document once";
}

/// All of the training is one document, which the prior has met: nothing is left to certify with.
TEST(OneDocument, LeavesNoneToCertifyAPrior) {
    const ScratchFolder scratch;
    std::filesystem::create_directory(scratch / "data");
    std::ofstream file(scratch / "data/a.jsonl");
    const auto line = [&](int length) {
        file << "{\"text\": \"";
        for (int i = 0; i < length; ++i) file << static_cast<char>('a' + i * i % 23);
        file << "\"}\n";
    };
    line(6000);
    for (int document = 0; document < 60; ++document) line(40);
    file.close();
    (void)train_tiny(
        scratch / "out", threads(2),
        {"task.data.path=" + scratch / "data", "task.data.validation=0.31", "generalization.unit=document"});
    const std::string run = scratch / "out/tiny";
    expect_failure(
        moesaic({"bound", run, "--pac-bayes", "--draws", "2", "--prior", run + "/checkpoints/step-00000010"}),
        2, {"no document begins in the ", "that the prior of step 10 has not met; give --prior an "});
}

TEST(TrainingShare, LeavesTheRestToCertifyAPrior) {
    const ScratchFolder scratch;
    const auto train = [&](const Words& more) {
        Words words{"train", "configs/digits.yaml", "--out", scratch / "out"};
        words.insert(words.end(), more.begin(), more.end());
        const CommandResult result = moesaic(words, threads(2));
        ASSERT_EQ(result.code, 0) << result.text();
    };
    train({"--set", "run.name=prior", "--set", "task.data.training_share=0.6"});
    const CommandResult result =
        moesaic({"bound", scratch / "out/prior", "--pac-bayes", "--draws", "150", "--json"}, threads(2));
    ASSERT_EQ(result.code, 0) << result.text();
    const Json record = Json::parse(result.out);
    EXPECT_EQ(record.at("prior_step"), record.at("step")) << "it is its own prior";
    const Json bound = record.at("bounds").at("pac_bayes_catoni");
    EXPECT_EQ(bound.at("details").at("units"), 1438 - 862) << "what is left of the training digits";
    EXPECT_LT(bound.at("value"), 0.14) << "0.208 with a prior from within the first epoch";

    train({"--set", "run.name=other", "--set", "run.seed=2", "--set", "train.steps=20"});
    expect_failure(moesaic({"bound", scratch / "out/other", "--pac-bayes", "--prior",
                            scratch / "out/prior/checkpoints/step-00000150"}),
                   2, {"another seed"});
}

}  // namespace
}  // namespace moesaic::e2e
