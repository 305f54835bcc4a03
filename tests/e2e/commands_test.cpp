// The other subcommands, and the command line's form.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "runtime/data/sampler.h"
#include "runtime/data/tokenizer.h"
#include "tests/e2e/command.h"
#include "tests/support/source_folder.h"

namespace moesaic::e2e {
namespace {

namespace fs = std::filesystem;

TEST(CommandLine, HelpEverywhere) {
    const std::vector<Words> commands{{},       {"train"},   {"eval"},   {"verify"},      {"generate"},
                                      {"data"}, {"study"},   {"report"}, {"bound"},       {"bench"},
                                      {"plan"}, {"convert"}, {"doctor"}, {"data", "dump"}};
    for (Words words : commands) {
        words.emplace_back("--help");
        const CommandResult result = moesaic(words);
        EXPECT_EQ(result.code, 0) << result.text();
        EXPECT_EQ(result.err, "");
        EXPECT_GT(result.out.size(), 20u);
    }
    EXPECT_EQ(moesaic({"--version"}).out.rfind("moesaic ", 0), 0u);
    const CommandResult all = moesaic({"--help-all"});
    EXPECT_EQ(all.code, 0) << all.text();
    EXPECT_EQ(occurrences(all.out, "--trace-step"), 1) << "an option of train";
    EXPECT_EQ(occurrences(moesaic({"bench", "--help-all"}).out, "--min-memcpy-fraction"), 1)
        << "and of bench dispatch";
    if (have_mpi()) {
        const CommandResult result = moesaic({"train", "--help"}, mpirun(2));
        EXPECT_EQ(result.code, 0) << result.text();
        EXPECT_EQ(occurrences(result.out, "--resume"),
                  occurrences(moesaic({"train", "--help"}).out, "--resume"));
    }
}

TEST(CommandLine, AlltoallTakesThatOfNcclTests) {
    const CommandResult result = moesaic(
        {"bench", "alltoall", "-b", "8", "-e", "64", "-f", "2", "-n", "2", "-g", "1", "-t", "1", "-z", "0"});
    EXPECT_EQ(result.code, 0) << result.text();
    expect_failure(moesaic({"bench", "alltoall", "-g", "8"}), 2,
                   {"8 is not offered: one GPU a rank: use mpirun"});
    expect_failure(moesaic({"bench", "alltoall", "-t", "2"}), 2, {"one GPU a rank: use mpirun"});
    expect_failure(moesaic({"bench", "alltoall", "-z", "1"}), 2, {"leave it out"});
    expect_failure(moesaic({"bench", "alltoall", "--what", "1", "-q"}), 2, {"not expected: --what 1 -q; "});
}

TEST(CommandLine, OptionsBeforeAndAfterPositionals) {
    const ScratchFolder scratch;
    const std::string out = scratch / "out";
    const Words before{"train",         "--out", out,          "--set",
                       "train.steps=6", "--set", "run.seed=7", "configs/tiny.yaml"};
    const Words after{"train", "configs/tiny.yaml", "--set", "train.steps=6", "--out", out,
                      "--set", "run.seed=7"};
    for (const Words& words : {before, after}) {
        const CommandResult result = moesaic(words);
        ASSERT_EQ(result.code, 0) << result.text();
        EXPECT_EQ(read_records(out + "/tiny").back().at("step"), 6);
        EXPECT_EQ(occurrences(read_text(out + "/tiny/config.yaml"), "seed: 7\n"), 1);
    }
    EXPECT_EQ(losses(read_records(out + "/tiny")), losses(read_records(out + "/tiny.old-1")));
}

TEST(Check, TellsTheLayoutAndWritesNothing) {
    const ScratchFolder scratch;
    for (const Ranks& ranks : {kAlone, mpirun(4), threads(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const CommandResult result = moesaic(tiny(scratch / "out", {}, {"--check"}), ranks);
        EXPECT_EQ(result.code, 0) << result.text();
        EXPECT_EQ(result.err, "");
        EXPECT_GT(lines_of(result.out).size(), 3u) << result.out;
        EXPECT_GE(occurrences(result.out, "memory"), 1) << result.out;
        EXPECT_FALSE(fs::exists(scratch / "out"));
    }
    EXPECT_EQ(moesaic(tiny(scratch / "out", {"model.moe.top_k=9"}, {"--check"})).code, 2);
}

TEST(Check, TellsBytesBetweenSimulatedNodes) {
    const ScratchFolder scratch;
    const auto check = [&](int per_node, const std::vector<std::string>& overrides) {
        std::vector<std::string> all{"parallel.expert=4"};
        all.insert(all.end(), overrides.begin(), overrides.end());
        return moesaic(tiny(scratch / "out", all, {"--check", "--ranks-per-node", std::to_string(per_node)}),
                       threads(4));
    };
    const CommandResult measured = check(2, {});
    EXPECT_EQ(measured.code, 0) << measured.text();
    for (const char* text : {"4 ranks on 2 simulated nodes", "chosen by measurement", "cross node",
                             "counts per expert", "dispatch backward", "between nodes"})
        EXPECT_EQ(occurrences(measured.out, text) > 0, true) << text << "\n" << measured.out;
    const CommandResult dedup = check(1, {"parallel.exchange=dedup"});
    EXPECT_EQ(occurrences(dedup.out, "places of rows"), 1) << dedup.text();
    const CommandResult uneven = check(3, {"parallel.exchange=hierarchical"});
    EXPECT_EQ(uneven.code, 2) << uneven.text();
    EXPECT_EQ(uneven.out, "");
    EXPECT_EQ(occurrences(uneven.err, "nodes of 3, 1 ranks; flat works on any"), 1) << uneven.text();
}

class Trained : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        scratch_ = new ScratchFolder;
        records_ = train_tiny(*scratch_ / "out", threads(2));
        run_ = *scratch_ / "out/tiny";
    }
    static void TearDownTestSuite() { delete scratch_; }

    static ScratchFolder* scratch_;
    static std::vector<Json> records_;
    static std::string run_;
};

ScratchFolder* Trained::scratch_ = nullptr;
std::vector<Json> Trained::records_;
std::string Trained::run_;

TEST_F(Trained, EvalRepeatsTheRunsOwnEvaluation) {
    const std::vector<Json> evaluations = events(records_, "eval");
    for (const Ranks& ranks : {kAlone, mpirun(2), mpirun(4), threads(3)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const CommandResult result = moesaic({"eval", run_, "--json"}, ranks);
        ASSERT_EQ(result.code, 0) << result.text();
        const Json found = Json::parse(result.out);
        for (const char* field : {"heldout_loss", "train_probe_loss", "heldout_error", "train_probe_error",
                                  "gap", "gap_low", "gap_high"}) {
            EXPECT_NEAR(found.at(field), evaluations.back().at(field), 1e-6) << field;
        }
        EXPECT_EQ(found.at("step"), 20);
        const Json& want = evaluations.back();
        ASSERT_GE(want.at("bounds").size(), 12u);
        for (const auto& [name, bound] : want.at("bounds").items())
            EXPECT_NEAR(found.at("bounds").at(name).at("value"), bound.at("value"),
                        1e-6 * bound.at("value").get<double>())
                << name;
        for (const char* group : {"losses", "gaps"}) {
            for (const auto& [name, numbers] : want.at(group).items()) {
                for (const auto& [key, value] : numbers.items())
                    EXPECT_NEAR(found.at(group).at(name).at(key), value, 1e-6) << name << " " << key;
            }
        }
        for (const auto& [name, layers] : want.at("measured").items()) {
            for (std::size_t i = 0; i < layers.size(); ++i)
                EXPECT_NEAR(found.at("measured").at(name).at(i), layers[i],
                            1e-6 * std::abs(layers[i].get<double>()))
                    << name;
        }
    }
    const CommandResult first = moesaic({"eval", "--json", run_ + "/checkpoints/step-00000000"});
    ASSERT_EQ(first.code, 0) << first.text();
    EXPECT_NEAR(Json::parse(first.out).at("heldout_loss"), evaluations.front().at("heldout_loss"), 1e-6);
}

TEST_F(Trained, BoundShowsWhatTheRunRecorded) {
    const Json want = events(records_, "eval").back().at("bounds");
    const CommandResult json = moesaic({"bound", run_, "--json"});
    ASSERT_EQ(json.code, 0) << json.text();
    EXPECT_EQ(Json::parse(json.out), want);
    const CommandResult text = moesaic({"bound", run_});
    ASSERT_EQ(text.code, 0) << text.text();
    EXPECT_LT(text.out.find("\n  heldout "), text.out.find("\n  corrected_softmax "));
    EXPECT_NE(text.out.find("layers_below_frozen       violated"), std::string::npos) << text.out;
    EXPECT_NE(text.out.find("On new data the model is wrong in"), std::string::npos);
}

TEST(Layout, ARunOfFourRanksIsReadOnOne) {
    const ScratchFolder scratch;
    const auto records = train_tiny(scratch / "out", threads(4),
                                    {"parallel.expert=2", "parallel.expert_tensor=2",
                                     "train.micro_sequences=4", "generalization.heldout_sequences=8"});
    const std::string run = scratch / "out/tiny";
    const CommandResult eval = moesaic({"eval", run, "--json"});
    ASSERT_EQ(eval.code, 0) << eval.text();
    EXPECT_NEAR(Json::parse(eval.out).at("heldout_loss"), events(records, "eval").back().at("heldout_loss"),
                1e-6);
    const CommandResult bound = moesaic({"bound", run, "--pac-bayes", "--draws", "2"});
    EXPECT_EQ(bound.code, 0) << bound.text();
    const CommandResult sample = moesaic({"generate", run, "--prompt", "It", "--tokens", "2"});
    EXPECT_EQ(sample.code, 0) << sample.text();
}

TEST_F(Trained, EvalWithOtherActiveExperts) {
    double loss[5] = {};
    for (const int k : {1, 2, 4}) {
        const CommandResult result = moesaic({"eval", run_, "--top-k", std::to_string(k), "--json"});
        ASSERT_EQ(result.code, 0) << result.text();
        loss[k] = Json::parse(result.out).at("heldout_loss");
    }
    EXPECT_NEAR(loss[2], events(records_, "eval").back().at("heldout_loss"), 1e-6);
    EXPECT_NE(loss[1], loss[2]);
    EXPECT_NE(loss[4], loss[2]);
    expect_failure(moesaic({"eval", run_, "--top-k", "5"}), 2, {"a token cannot visit 5 of 4 experts"});
}

TEST_F(Trained, GenerateContinuesThePrompt) {
    const Words words{"generate", run_, "--prompt", "It was a", "--tokens", "80", "--temperature", "0"};
    const CommandResult first = moesaic(words), second = moesaic(words);
    ASSERT_EQ(first.code, 0) << first.text();
    EXPECT_EQ(first.out.rfind("It was a", 0), 0u) << first.out;
    EXPECT_EQ(first.out.size(), std::strlen("It was a") + 80 + 1);
    EXPECT_EQ(first.out, second.out);
    const Words warm{"generate", run_, "--prompt", "It was a", "--tokens", "80", "--seed", "1"};
    Words other = warm;
    other.back() = "2";
    EXPECT_EQ(moesaic(warm).out, moesaic(warm).out);
    EXPECT_NE(moesaic(warm).out, moesaic(other).out);
    EXPECT_EQ(moesaic({"generate", run_, "--prompt", ""}).code, 2);
}

TEST(DataDump, HoldsTheGlobalBatchesOfTheDefinition) {
    const ScratchFolder scratch;
    const std::string file = scratch / "batches.npy";
    const CommandResult result =
        moesaic({"data", "dump", "configs/tiny.yaml", "--steps", "3", "-o", file, "--set", "run.seed=5"});
    ASSERT_EQ(result.code, 0) << result.text();
    const std::string bytes = read_text(file);
    ASSERT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
    const std::size_t header =
        static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
    EXPECT_EQ((10 + header) % 64, 0u) << "data are aligned";
    std::string dictionary = bytes.substr(10, header);
    std::erase(dictionary, ' ');
    EXPECT_NE(dictionary.find("'descr':'<i4'"), std::string::npos) << dictionary;
    EXPECT_NE(dictionary.find("'fortran_order':False"), std::string::npos) << dictionary;
    EXPECT_NE(dictionary.find("'shape':(3,8,65"), std::string::npos) << dictionary;

    const auto tokenizer = make_tokenizer("bytes");
    const Dataset dataset({std::string(MOESAIC_SOURCE_DIR) + "/configs/data/quad", 64, 0.1}, *tokenizer);
    std::vector<i32> expected(3 * 8 * 65);
    for (int step = 1; step <= 3; ++step) {
        dataset.training_batch(5, step, 8, 0, 8, expected.data() + (step - 1) * 8 * 65);
    }
    const std::string data(reinterpret_cast<const char*>(expected.data()), expected.size() * sizeof(i32));
    EXPECT_TRUE(bytes.substr(10 + header) == data);
    EXPECT_NE(moesaic({"data", "dump", "configs/tiny.yaml", "--steps", "3"}).code, 0) << "-o is required";
}

TEST(Verify, CertifiesTheTinyConfiguration) {
    const Words words{"verify", "configs/tiny.yaml", "--layouts", "1,2,4", "--steps", "3"};
    const CommandResult table = moesaic(words);
    EXPECT_EQ(table.code, 0) << table.text();
    EXPECT_EQ(occurrences(table.out, "NO"), 0) << table.text();
    EXPECT_GE(occurrences(table.out, " ok\n"), 3) << table.text();

    Words json = words;
    json.emplace_back("--json");
    const CommandResult object = moesaic(json);
    ASSERT_EQ(object.code, 0) << object.text();
    const Json found = Json::parse(object.out);
    EXPECT_EQ(found.at("ok"), true);
    std::set<std::pair<int, int>> layouts;
    for (const Json& row : found.at("layouts")) {
        EXPECT_EQ(row.at("ok"), true) << row;
        layouts.emplace(row.at("world_size"), row.at("expert_parallel"));
    }
    EXPECT_EQ(layouts, (std::set<std::pair<int, int>>{{1, 1}, {2, 1}, {2, 2}, {4, 1}, {4, 2}, {4, 4}}));
    EXPECT_EQ(found.at("left_out"), Json::array());
}

TEST(Verify, NamesTheLayoutsThatItLeavesOut) {
    const Words words{"verify", "configs/tiny.yaml", "--layouts", "1,2", "--set", "parallel.expert_tensor=2"};
    const CommandResult table = moesaic(words);
    EXPECT_EQ(table.code, 0) << table.text();
    EXPECT_EQ(occurrences(table.out, "left out: 1 rank: no multiple of parallel.expert_tensor: 2\n"), 1)
        << table.text();
    Words json = words;
    json.emplace_back("--json");
    const Json found = Json::parse(moesaic(json).out);
    EXPECT_EQ(found.at("layouts").size(), 1u);
    EXPECT_EQ(found.at("left_out"), (Json::array({{{"world_size", 1},
                                                   {"expert_parallel", nullptr},
                                                   {"why", "no multiple of parallel.expert_tensor: 2"}}})));
    expect_failure(moesaic({"verify", "configs/momlp.yaml", "--layouts", "3"}), 2,
                   {"--layouts: the configuration runs on none of them"});
}

}  // namespace
}  // namespace moesaic::e2e
