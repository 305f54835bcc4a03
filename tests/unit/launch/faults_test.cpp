// Faults on order: what can be said, what is refused, and that the README says the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/faults/fault.h"
#include "launch/rank_runtime.h"
#include "tests/support/golden_table.h"
#include "tests/support/tiny_run.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

std::string mistakes_of(const std::function<void()>& work) {
    try {
        work();
    } catch (const UserError& error) {
        return error.what();
    }
    return "none";
}

TEST(Faults, CommasSeparateFieldsAndFaults) {
    const std::vector<Fault> faults = parse_faults(
        "kill:rank=2,step=5,late:rank=1,step=3,seconds=0.5,full-disk,nan:expert=3,layer=1,step=4,"
        "in=weight,slow-disk:seconds=2");
    ASSERT_EQ(faults.size(), 5u);
    EXPECT_EQ(faults[0].type, FaultType::kill);
    EXPECT_EQ(faults[0].rank, 2);
    EXPECT_EQ(faults[0].step, 5);
    EXPECT_EQ(faults[1].seconds, 0.5);
    EXPECT_EQ(faults[2].type, FaultType::full_disk);
    EXPECT_FALSE(faults[2].step);
    EXPECT_EQ(faults[3].where, "weight");
    EXPECT_EQ(faults[4].type, FaultType::slow_disk);
}

TEST(Faults, EveryExampleOfTheTableCanBeRead) {
    for (const FaultKind& kind : fault_table()) {
        const std::vector<Fault> faults = parse_faults(std::string(kind.example));
        ASSERT_EQ(faults.size(), 1u) << kind.name;
        EXPECT_EQ(faults[0].type, kind.type);
    }
}

TEST(Faults, AllMistakesAtOnce) {
    const std::string text = mistakes_of([] {
        (void)parse_faults(
            "kil:rank=1,step=2,late:rank=x,seconds=1,flip:layer=2,rank=0,step=1,rank=1,nan:expert=1,"
            "layer=0,step=1,in=head");
    });
    EXPECT_THAT(text, HasSubstr("kil: there is no such fault; did you mean 'kill'? one of kill, hang"));
    EXPECT_THAT(text, HasSubstr("late: rank: 'x' is no value; a number that is not negative"));
    EXPECT_THAT(text, HasSubstr("late: needs step=..., e.g. late:rank=1,step=7,seconds=1"));
    EXPECT_THAT(text, HasSubstr("flip: has no field 'layer'; it has rank step bit"));
    EXPECT_THAT(text, HasSubstr("flip: 'rank' stands twice"));
    EXPECT_THAT(text, HasSubstr("nan: in: 'head' is no value; gradient or weight"));
    EXPECT_THAT(text, HasSubstr("see moesaic train --inject help"));
    for (const char* orders : {"", "rank=1", "kill:", "kill:rank", "kill:rank=1,step=2,"})
        EXPECT_NE(mistakes_of([&] { (void)parse_faults(orders); }), "none") << orders;
}

TEST(Faults, WhatCannotBeIsRefused) {
    const RunSetup run = tiny_run({"train.steps=20", "train.checkpoint_every=10", "model.moe.every=2"});
    const auto check = [&](const std::string& orders, int world, int expert_parallel, bool threads = false) {
        return mistakes_of([&] {
            check_faults(parse_faults(orders), {run.config, run.spec, world, expert_parallel, threads});
        });
    };
    EXPECT_EQ(check("kill:rank=1,step=20,in=step,full-disk:step=10,bitflip-checkpoint:step=0", 2, 1), "none");
    const std::string text = check("kill:rank=2,step=21,full-disk:step=5,truncate-checkpoint:shard=9", 2, 1);
    EXPECT_THAT(text, HasSubstr("kill: there is no rank 2 of 2"));
    EXPECT_THAT(text, HasSubstr("kill: there is no step 21 of 20"));
    EXPECT_THAT(text, HasSubstr("full-disk: step 5 has no checkpoint: train.checkpoint_every is 10"));
    EXPECT_THAT(text, HasSubstr("truncate-checkpoint: there is no shard 9 of 2"));
    EXPECT_THAT(check("kill:rank=0,step=1", 2, 1, true), HasSubstr("ranks that are threads die together"));
    EXPECT_THAT(check("hang:rank=0,step=1", 1, 1), HasSubstr("needs several ranks"));
    EXPECT_THAT(check("zero-tokens:rank=0,step=1", 1, 1), HasSubstr("needs a second rank"));
    EXPECT_THAT(check("flip:rank=0,step=1", 2, 1), HasSubstr("no rows travel"));
    EXPECT_THAT(check("flip:rank=0,step=1", 2, 2), HasSubstr("parallel.checksums: true"));
    int without = 0;
    while (run.spec.has_experts(without)) ++without;
    EXPECT_THAT(check(fmt::format("nan:expert=0,layer={},step=1", without), 2, 2),
                HasSubstr("has no experts"));
    EXPECT_THAT(check("nan:expert=8,layer=1,step=1", 2, 2), HasSubstr("there is no expert 8 of 8"));
}

TEST(Faults, ReadmeHasTheTable) {
    expect_golden_table("launch/README.md", "faults", faults_markdown());
}

}  // namespace
}  // namespace moesaic
