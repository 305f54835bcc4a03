// Every fault of the table, ordered from the program as its users start it: what it says, within its time.
#include <gmock/gmock.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <set>

#include "launch/faults/fault.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// What a fault has to bring.
struct Expectation {
    std::string orders;
    Words overrides;
    int code = 0;
    Words said;              ///< on stdout or stderr
    bool same_bits = false;  ///< the final checkpoint is that of the undisturbed run
    double seconds = 20;     ///< the run is over by then
};

const Words kFaultedRun{"train.steps=20", "train.checkpoint_every=10", "train.log_every=1",
                        "parallel.expert=2"};
const std::string kTimeout = "parallel.timeout_seconds=2";

/// By the name of the fault.
const std::multimap<std::string, Expectation> kExpectations{
    {"kill", {"kill:rank=1,step=7", {}, 137, {"fault: rank 1 dies before step 7", "signal 9"}}},
    {"kill",
     {"kill:rank=0,step=10,in=checkpoint", {}, 137, {"dies in the checkpoint of step 10", "signal 9"}}},
    {"hang",
     {"hang:rank=1,step=7", {kTimeout}, 1, {"rank 1 has not come to all_", "step 7", "flight.rank*.txt"}}},
    {"late", {"late:rank=1,step=7,seconds=0.3", {}, 0, {"begins step 7 0.3 s late"}, true}},
    {"late", {"late:rank=1,step=7,seconds=60", {kTimeout}, 1, {"rank 1 has not come to all_"}}},
    {"wrong-order",
     {"wrong-order:rank=1,step=7",
      {kTimeout},
      1,
      {"rank 1", "'out of order (injected)'", "all_gather_rows"}}},
    {"zero-tokens", {"zero-tokens:rank=1,step=7", {}, 0, {"gets no tokens in step 7"}, true}},
    {"nan",
     {"nan:layer=1,expert=3,step=7",
      {},
      1,
      {"first in the gradient of model.layers.1.mlp.experts.3.", "(layer 1, expert 3), on rank 1",
       "nothing was updated; the newest checkpoint is of step 0"}}},
    {"nan",
     {"nan:layer=1,expert=3,step=7",
      {"train.nonfinite=skip"},
      0,
      {"this update is left out", "done at step 20"}}},
    {"nan",
     {"nan:layer=1,expert=3,step=12",
      {"train.nonfinite=rollback"},
      0,
      {"back to the newest checkpoint"},
      true}},
    {"nan",
     {"nan:layer=0,expert=0,step=12,in=weight",
      {"train.nonfinite=rollback"},
      0,
      {"the weights themselves are not finite: model.layers.0.mlp.experts.0."},
      true}},
    {"flip",
     {"flip:rank=1,step=7",
      {"parallel.checksums=true"},
      1,
      {"rows from rank 0 of 'experts' are not what it sent in all_to_all_rows 'dispatch, layer 0'",
       "[r1/2 s7] error: "}}},
    {"truncate-checkpoint", {"truncate-checkpoint:step=10", {}, 0, {"loses its second half"}, true}},
    {"bitflip-checkpoint",
     {"bitflip-checkpoint:step=10,shard=1", {}, 0, {"a bit of", "shard-00001-of-00002"}, true}},
    {"full-disk",
     {"full-disk:step=10,rank=1",
      {},
      0,
      {"could not write its part of the checkpoint of step 10", "No space left on device",
       "training goes on"},
      true}},
    {"full-disk", {"full-disk:step=20", {}, 1, {"No space left on device"}}},
    {"slow-disk", {"slow-disk:step=10,seconds=0.2", {}, 0, {"done at step 20"}, true}},
    {"slow-disk",
     {"slow-disk:step=10,seconds=2",
      {"train.steps=11"},
      0,
      {"the checkpoint of step 10 took", "raise train.checkpoint_every"}}},
};

class FaultTable : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        if (!have_mpi()) return;
        scratch_ = new ScratchFolder;
        train_tiny(*scratch_ / "undisturbed", mpirun(2), kFaultedRun);
        undisturbed_ =
            new StoredTensors(read_tensors(*scratch_ / "undisturbed/tiny/checkpoints/step-00000020"));
    }
    static void TearDownTestSuite() {
        delete scratch_;
        delete undisturbed_;
    }

    static void expect(const Expectation& wanted) {
        SCOPED_TRACE(wanted.orders);
        const ScratchFolder scratch;
        Words overrides = kFaultedRun;
        overrides.insert(overrides.end(), wanted.overrides.begin(), wanted.overrides.end());
        CommandOptions options;
        options.timeout_seconds = wanted.seconds * 3;  // a busy machine
        const CommandResult result =
            moesaic(tiny(scratch / "out", overrides, {"--inject", wanted.orders}), mpirun(2), options);
        EXPECT_FALSE(result.timed_out) << "it hangs\n" << result.text();
        EXPECT_EQ(result.code, wanted.code) << result.text();
        for (const std::string& text : wanted.said) EXPECT_THAT(result.out + result.err, HasSubstr(text));
        if (!wanted.same_bits) return;
        expect_same_bytes(read_tensors(scratch / "out/tiny/checkpoints/step-00000020"), *undisturbed_);
    }

    static ScratchFolder* scratch_;
    static StoredTensors* undisturbed_;
};

ScratchFolder* FaultTable::scratch_ = nullptr;
StoredTensors* FaultTable::undisturbed_ = nullptr;

TEST_F(FaultTable, HasAnExpectationForEveryFault) {
    std::set<std::string> expected;
    for (const auto& [name, one] : kExpectations) {
        expected.insert(name);
        EXPECT_EQ(kind_of(parse_faults(one.orders).front().type).name, name);
    }
    for (const FaultKind& kind : fault_table())
        EXPECT_TRUE(expected.contains(std::string(kind.name))) << kind.name;
}

void expect_all_of(const std::string& name, const std::function<void(const Expectation&)>& expect) {
    const auto [first, last] = kExpectations.equal_range(name);
    for (auto one = first; one != last; ++one) expect(one->second);
}

#define MOESAIC_FAULT_TEST(test, name)                                    \
    TEST_F(FaultTable, test) {                                            \
        if (!have_mpi()) GTEST_SKIP() << "built without MPI";             \
        expect_all_of(name, [](const Expectation& one) { expect(one); }); \
    }
MOESAIC_FAULT_TEST(Kill, "kill")
MOESAIC_FAULT_TEST(Hang, "hang")
MOESAIC_FAULT_TEST(Late, "late")
MOESAIC_FAULT_TEST(WrongOrder, "wrong-order")
MOESAIC_FAULT_TEST(ZeroTokens, "zero-tokens")
MOESAIC_FAULT_TEST(Nan, "nan")
MOESAIC_FAULT_TEST(Flip, "flip")
MOESAIC_FAULT_TEST(TruncatedCheckpoint, "truncate-checkpoint")
MOESAIC_FAULT_TEST(BitflippedCheckpoint, "bitflip-checkpoint")
MOESAIC_FAULT_TEST(FullDisk, "full-disk")
MOESAIC_FAULT_TEST(SlowDisk, "slow-disk")

TEST(Faults, HelpListsThemAndMistakesAreAUsers) {
    const CommandResult help = moesaic({"train", "--inject", "help"});
    EXPECT_EQ(help.code, 0);
    for (const FaultKind& kind : fault_table())
        EXPECT_THAT(help.out, HasSubstr("\n" + std::string(kind.name) + " "));
    const ScratchFolder scratch;
    for (const Ranks& ranks : {kAlone, mpirun(2), threads(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        expect_failure(
            moesaic(tiny(scratch / "out", {}, {"--inject", "kill:rank=5,step=7,nam:step=3"}), ranks), 2,
            {"nam: there is no such fault; did you mean 'nan'?"});
        expect_failure(moesaic(tiny(scratch / "out", {}, {"--inject", "zero-tokens:rank=5,step=70"}), ranks),
                       2, {"there is no rank 5 of", "there is no step 70 of 20"});
    }
}

/// A damaged newest checkpoint is no reason to lose the run.
TEST(Faults, ADamagedCheckpointIsLeftForTheOneBefore) {
    for (const std::string fault : {"truncate-checkpoint:step=20", "bitflip-checkpoint:step=20"}) {
        SCOPED_TRACE(fault);
        const ScratchFolder scratch;
        const std::string out = scratch / "out", newest = out + "/tiny/checkpoints/step-00000020";
        train_tiny(out, threads(2), {}, {"--inject", fault});
        const std::string damage = fault.starts_with("truncate") ? "truncated shard" : "damaged shard";
        expect_failure(moesaic({"eval", newest}), 1, {damage});
        const CommandResult result = moesaic(tiny(out, {"train.steps=25"}, {"--resume", "auto"}), threads(2));
        EXPECT_EQ(result.code, 0) << result.text();
        EXPECT_EQ(occurrences(result.err, damage), 1) << result.text();
        EXPECT_THAT(result.err, HasSubstr("/step-00000010 at step 10"));
        EXPECT_EQ(moesaic({"eval", newest}).code, 0) << "it has been written anew";
    }
}

/// A look is paid for in every later limit: a run that goes back to its step 0 does not look once more.
/// Weights that have met no data have no limit.
TEST(Faults, StepZeroIsLookedAtOnce) {
    const ScratchFolder scratch;
    const auto undisturbed = train_tiny(scratch / "undisturbed", threads(2));
    const auto back = train_tiny(scratch / "back", threads(2), {"train.nonfinite=rollback"},
                                 {"--inject", "nan:layer=1,expert=3,step=3"});
    const auto alarms = events(back, "alarm");
    ASSERT_EQ(alarms.size(), 1U);
    EXPECT_EQ(alarms[0].at("kind"), "nonfinite");
    EXPECT_EQ(alarms[0].at("action"), "rollback");
    const auto evaluations = events(back, "eval"), wanted = events(undisturbed, "eval");
    ASSERT_EQ(evaluations.size(), wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        EXPECT_EQ(evaluations[i].at("step"), wanted[i].at("step"));
        EXPECT_EQ(evaluations[i].at("heldout_loss"), wanted[i].at("heldout_loss"));
        EXPECT_EQ(evaluations[i].at("bounds").value("heldout", Json()),
                  wanted[i].at("bounds").value("heldout", Json()))
            << "look " << i;
    }
    EXPECT_FALSE(wanted.front().at("bounds").contains("heldout"));
    EXPECT_TRUE(wanted.back().at("bounds").contains("heldout"));
}

/// What a look spent stays spent when the run goes back before it: the next one is not its equal.
TEST(Faults, LooksThatWereCutAwayAreCounted) {
    const ScratchFolder scratch;
    const Words often{"train.nonfinite=rollback", "train.steps=20", "train.checkpoint_every=10",
                      "train.eval_every=4"};
    const auto records =
        train_tiny(scratch / "back", threads(2), often, {"--inject", "nan:layer=1,expert=3,step=19"});
    std::map<i64, i64> looks;
    for (const Json& evaluation : events(records, "eval"))
        if (!evaluation.at("look").is_null())
            looks[evaluation.at("step").get<i64>()] = evaluation.at("look").get<i64>();
    // The attempt that failed looked at 12 and 16 too, the third and the fourth time.
    EXPECT_EQ(looks, (std::map<i64, i64>{{4, 1}, {8, 2}, {12, 5}, {16, 6}, {20, 7}}));
}

}  // namespace
}  // namespace moesaic::e2e
