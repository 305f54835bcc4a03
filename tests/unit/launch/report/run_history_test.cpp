#include "launch/report/run_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/commands/run_bounds.h"
#include "runtime/base/error.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

RunHistory read_lines(const std::string& lines) {
    const ScratchFolder folder;
    write_text(folder / "metrics.jsonl", lines);
    return read_run(folder.path());
}

TEST(RunHistory, ReadsEveryFieldByItsName) {
    const RunHistory run = read_lines(
        R"({"event":"run","version":"9","config":"a: 1\n","world_size":2})"
        "\n"
        R"({"event":"step","step":1,"loss":5.5,"loss_aux":null,"lr":1e-3})"
        "\n"
        R"({"event":"experts","step":1,"layer":3,"load":[4,0],"router_entropy":0.5})"
        "\n"
        R"({"event":"eval","step":1,"gap":0.25,"meaning":"all is well","gaps":{"error":{"value":0.5}},"heldout_by_source":{"a.txt":5},"bounds":{"heldout":{"value":0.5,)"
        R"("terms":{"empirical":0.4,"slack":0.1},"vacuous":false,"assumptions":[)"
        R"({"name":"fresh","status":"unknown"},{"name":"range","status":"holds"}]},)"
        R"("published":{"value":2,"assumptions":[{"name":"router","status":"violated"}]}}})"
        "\n"
        R"({"event":"alarm","step":1,"kind":"leak","message":"words","action":"warn"})"
        "\n"
        R"({"event":"end","step":1,"status":"done","seconds":2.5})");
    EXPECT_THAT(run.at("step.loss").value, ElementsAre(5.5));
    EXPECT_THAT(run.at("step.lr").value, ElementsAre(1e-3));
    EXPECT_FALSE(run.has("step.loss_aux"));
    EXPECT_THAT(run.at("eval.heldout_by_source.a.txt").value, ElementsAre(5));
    EXPECT_TRUE(run.has("experts.router_entropy"));
    EXPECT_FALSE(run.has("experts.entropy"));
    EXPECT_THAT(run.loads.at(3).at(0).load, ElementsAre(4, 0));
    EXPECT_EQ(run.fact("world_size"), "2");
    EXPECT_EQ(run.config, "a: 1\n");
    ASSERT_EQ(run.bounds.size(), 2u);
    EXPECT_EQ(run.bounds[0].terms[1].first, "slack");
    EXPECT_THAT(run.bounds[0].open_assumptions, ElementsAre("fresh: unknown"));
    EXPECT_FALSE(run.bounds[0].violated);
    EXPECT_TRUE(run.bounds[1].violated);
    EXPECT_THAT(run.at("bound.heldout").value, ElementsAre(0.5));
    EXPECT_EQ(run.alarms.at(0).message, "words");
    EXPECT_EQ(run.status, "done");
    EXPECT_EQ(run.meaning, "all is well");
    EXPECT_THAT(run.at("eval.gaps.error.value").value, ElementsAre(0.5));
}

TEST(RunHistory, ReadsDomainsAndBoundsThatCameLater) {
    const RunHistory run = read_lines(
        R"({"event":"eval","step":1,"meaning":"all is well","bounds":{"heldout":{"value":0.5}},)"
        R"("domain_experts":[{"layer":2,"share":{"a":[1,0],"b":[0.5,0.5]},"mutual_information":0.25,"p_value":0.5}]})"
        "\n"
        R"({"event":"bound","step":1,"prior_step":0,"meaning":"it says little","bounds":{"pac_bayes_kl":{"value":0.9}}})"
        "\n"
        R"({"event":"bound","step":1,"prior_step":0,"meaning":"","bounds":{"pac_bayes_kl":{"value":0.8}}})");
    ASSERT_EQ(run.domains.size(), 1u);
    EXPECT_EQ(run.domains[0].layer, 2);
    EXPECT_THAT(run.domains[0].names, ElementsAre("a", "b"));
    EXPECT_THAT(run.domains[0].share[1], ElementsAre(0.5, 0.5));
    EXPECT_EQ(run.domains[0].p_value, 0.5);
    EXPECT_THAT(run.at("eval.mutual_information.layer 2").value, ElementsAre(0.25));
    ASSERT_EQ(run.bounds.size(), 2u);
    EXPECT_EQ(run.bounds[1].name, "pac_bayes_kl");
    EXPECT_EQ(run.bounds[1].value, 0.8) << "the later one stands";
    EXPECT_EQ(run.meaning, "all is well it says little");
}

TEST(RunHistory, SurvivesCutOffAndForeignLines) {
    const RunHistory run = read_lines(
        "{\"event\":\"step\",\"step\":1,\"loss\":2}\nnonsense\n[1]\n"
        "{\"event\":\"step\",\"loss\":2}\n{\"event\":\"novel\",\"step\":2}\n"
        "{\"event\":\"step\",\"step\":2,\"lo");
    EXPECT_THAT(run.at("step.loss").step, ElementsAre(1));
    EXPECT_THAT(run.notes, testing::Contains(HasSubstr("4 of 6 lines")));
    EXPECT_EQ(run.status, "no end recorded");
}

TEST(RunHistory, SurvivesRecordsOfOtherTypesAndDepth) {
    const std::string deep = std::string(300000, '[') + std::string(300000, ']');
    std::string lines;
    for (
        const std::string& line :
        {"{\"event\":\"run\",\"x\":" + deep + "}", "{\"event\":\"step\",\"step\":1,\"x\":" + deep + "}",
         std::string(R"({"event":5,"step":1})"), std::string(R"({"event":"experts","step":1,"layer":"two"})"),
         std::string(
             R"({"event":"bound","step":1,"bounds":{"x":{"value":"inf","terms":5,"assumptions":{"a":5}},"y":[]}})"),
         std::string(R"({"event":"eval","step":1,"bounds":[],"domain_experts":[5,{"layer":"x"},)"
                     R"({"layer":1,"share":{"a":[1]}},{"layer":2,"share":5}]})")})
        lines += line + "\n";
    const RunHistory run = read_lines(lines);
    EXPECT_THAT(run.notes, testing::Contains(HasSubstr("3 of 6 lines")));
    ASSERT_EQ(run.domains.size(), 1u);
    EXPECT_EQ(run.domains[0].layer, 1);
    ASSERT_EQ(run.bounds.size(), 1u);
    EXPECT_EQ(run.bounds[0].name, "x");
}

TEST(RunBounds, OfARecordThatLacksSomethingNameTheFile) {
    const ScratchFolder folder;
    for (const char* lines : {R"({"event":"eval","step":1,"bounds":{"heldout":{"value":0.5}}})",
                              R"({"event":"eval","step":"1","bounds":{"a":{}}})",
                              R"({"event":"run","config":5})", R"({"event":"eval","step":1,"bounds":[5]})",
                              R"({"event":"eval","step":1,"meaning":[5],"bounds":{"a":{}}})"}) {
        write_text(folder / "metrics.jsonl", std::string(lines) + "\n");
        try {
            (void)read_run_bounds(folder.path());
            FAIL() << lines;
        } catch (const UserError& error) {
            EXPECT_THAT(error.what(),
                        HasSubstr("metrics.jsonl: the record of the run or of its last evaluation"))
                << lines;
        }
    }
}

TEST(RunHistory, OfAStepRecordedTwiceTheLaterStands) {
    const RunHistory run = read_lines(
        "{\"event\":\"step\",\"step\":2,\"loss\":2}\n"
        "{\"event\":\"step\",\"step\":1,\"loss\":1}\n"
        "{\"event\":\"step\",\"step\":2,\"loss\":3}\n"
        "{\"event\":\"experts\",\"step\":2,\"layer\":0,\"load\":[1,2]}\n"
        "{\"event\":\"experts\",\"step\":2,\"layer\":0,\"load\":[3,4]}\n");
    EXPECT_THAT(run.at("step.loss").step, ElementsAre(1, 2));
    EXPECT_THAT(run.at("step.loss").value, ElementsAre(1, 3));
    ASSERT_EQ(run.loads.at(0).size(), 1u);
    EXPECT_THAT(run.loads.at(0)[0].load, ElementsAre(3, 4));
}

TEST(RunHistory, NotesWhatIsNotFinite) {
    const RunHistory run = read_lines(
        "{\"event\":\"step\",\"step\":1,\"loss\":1}\n"
        "{\"event\":\"step\",\"step\":5,\"loss\":\"nan\"}\n"
        "{\"event\":\"step\",\"step\":6,\"loss\":\"-inf\"}\n");
    EXPECT_THAT(run.at("step.loss").step, ElementsAre(1));
    EXPECT_THAT(run.notes, testing::Contains("step.loss was not finite 2 times, first in step 5"));
}

TEST(RunHistory, SaysWhatIsNoRunFolder) {
    const ScratchFolder folder;
    EXPECT_THROW((void)read_run(folder.path()), UserError);
    EXPECT_THROW((void)read_run(folder / "absent"), UserError);
    write_text(folder / "metrics.jsonl", "");
    EXPECT_THAT(read_run(folder.path()).notes, testing::Contains("metrics.jsonl is empty"));
}

}  // namespace
}  // namespace moesaic
