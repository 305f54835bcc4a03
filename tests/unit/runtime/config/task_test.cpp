// What goes with which task and which kind of model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/config/load.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

std::string mistakes(const std::vector<std::string>& overrides) {
    return parse_config("", "c.yaml", overrides).diagnostics.text();
}

using Overrides = std::vector<std::string>;

const Overrides kTable{"task.kind=classification", "model.kind=mlp", "task.data.path=a.csv"};

std::string table_mistakes(const Overrides& more) {
    Overrides all = kTable;
    all.insert(all.end(), more.begin(), more.end());
    return mistakes(all);
}

TEST(TaskConfig, EveryTaskHasItsModels) {
    EXPECT_EQ(mistakes({}), "");
    EXPECT_EQ(table_mistakes({}), "");
    EXPECT_EQ(mistakes({"task.kind=sraven"}), "");
    EXPECT_EQ(mistakes({"task.kind=regression", "task.data.function=ackley", "model.kind=momlp",
                        "model.moe.activation=prelu"}),
              "");
    EXPECT_THAT(
        mistakes({"task.kind=regression", "task.data.function=ackley"}),
        HasSubstr("model.kind: a transformer does not learn task.kind regression; one of: mlp, momlp"));
    EXPECT_THAT(mistakes({"model.kind=mlp"}),
                HasSubstr("a mlp does not learn task.kind lm; one of: transformer"));
}

TEST(TaskConfig, KeysOfOtherKindsAreRefused) {
    EXPECT_THAT(
        mistakes({"task.data.function=ackley"}),
        HasSubstr("task.data.function: has no meaning for task.kind lm; leave it out, or one of the kinds "
                  "classification, regression"));
    EXPECT_THAT(mistakes({"task.sraven.features=3"}), HasSubstr("task.sraven.features: has no meaning"));
    EXPECT_THAT(table_mistakes({"task.data.seq_len=8"}), HasSubstr("task.data.seq_len: has no meaning"));
    EXPECT_THAT(table_mistakes({"model.heads=8"}),
                HasSubstr("model.heads: has no meaning for model.kind mlp"));
    EXPECT_THAT(table_mistakes({"model.branches=8"}), HasSubstr("model.branches: has no meaning"));
    EXPECT_THAT(mistakes({"model.residual=false"}), HasSubstr("model.residual: has no meaning"));
    EXPECT_EQ(mistakes({"task.data.seq_len=256", "task.data.function=none"}), "")
        << "the defaults change nothing";
}

TEST(TaskConfig, FormatsGoWithTasks) {
    EXPECT_THAT(mistakes({"task.data.format=csv"}), HasSubstr("'csv' is no format of data for task.kind lm"));
    EXPECT_THAT(table_mistakes({"task.data.format=megatron"}), HasSubstr("one of: auto, csv, npy, idx"));
    EXPECT_THAT(mistakes({"task.kind=regression", "model.kind=mlp", "task.data.function=ackley",
                          "task.data.path=a.csv"}),
                HasSubstr("stands beside task.data.function"));
}

TEST(TaskConfig, FunctionsGoWithTasks) {
    const auto with = [](const char* kind, const char* function, const char* noise) {
        return mistakes({std::string("task.kind=") + kind, "model.kind=mlp",
                         std::string("task.data.function=") + function,
                         std::string("task.data.noise=") + noise});
    };
    EXPECT_EQ(with("classification", "teacher", "0.2"), "");
    EXPECT_EQ(with("regression", "ackley", "3"), "");
    EXPECT_THAT(with("regression", "teacher", "0"), HasSubstr("task.data.function: teacher gives classes"));
    EXPECT_THAT(with("classification", "ackley", "0"), HasSubstr("task.data.function: ackley gives values"));
    EXPECT_THAT(with("classification", "teacher", "1.5"),
                HasSubstr("task.data.noise: 1.5 is no share of labels"));
}

TEST(TaskConfig, RowsAreNoSequences) {
    for (const char* kind : {"hash", "expert_choice"})
        EXPECT_THAT(table_mistakes({std::string("model.moe.router.kind=") + kind}),
                    HasSubstr("model.moe.router.kind: "));
    EXPECT_THAT(table_mistakes({"model.moe.router.kind=sinkhorn"}),
                HasSubstr("model.moe.router.sinkhorn_scope: an example is a sequence of one row; micro"));
    EXPECT_THAT(table_mistakes({"model.moe.balance.scope=sequence"}), HasSubstr("model.moe.balance.scope: "));
    EXPECT_THAT(table_mistakes({"model.moe.capacity.factor=2"}), HasSubstr("model.moe.capacity.per: "));
    EXPECT_EQ(table_mistakes({"model.moe.capacity={factor: 2, per: micro}"}), "");
}

TEST(TaskConfig, CellsShareABatchEvenly) {
    const Overrides momlp{"task.kind=regression", "task.data.function=ackley", "model.kind=momlp"};
    const auto with = [&](const Overrides& more) {
        Overrides all = momlp;
        all.insert(all.end(), more.begin(), more.end());
        return mistakes(all);
    };
    EXPECT_THAT(with({}), HasSubstr("swiglu is gated"));
    EXPECT_THAT(with({"model.moe.activation=relu", "train.batch_sequences=30"}),
                HasSubstr("30 examples are not as many of each of 8 cells"));
    EXPECT_THAT(with({"model.moe.activation=relu", "model.moe.experts=0"}), HasSubstr("without cells"));
    EXPECT_THAT(with({"model.moe.activation=relu", "parallel.placement=load_aware"}),
                HasSubstr("stays with the samples of its cell"));
    EXPECT_THAT(with({"model.moe.activation=relu", "parallel.expert_tensor=2"}),
                HasSubstr("parallel.expert_tensor: "));
}

TEST(TaskConfig, ARuleIsNoCombination) {
    EXPECT_THAT(mistakes({"task.kind=sraven", "task.sraven.features=1"}),
                HasSubstr("task.sraven.features: a combination of one rule is the rule"));
    EXPECT_EQ(mistakes({"task.kind=sraven", "task.sraven.features=1", "task.sraven.held_out=0"}), "");
}

/// What a run folder and a checkpoint keep is read back the same.
TEST(TaskConfig, TheResolvedConfigurationCanBeReadAgain) {
    const LoadedConfig loaded = parse_config("", "c.yaml",
                                             Overrides{"task.kind=regression", "task.data.function=ackley",
                                                       "model.kind=momlp", "model.moe.activation=relu"});
    const LoadedConfig again = parse_config(to_yaml(loaded.config), "again.yaml");
    EXPECT_EQ(again.diagnostics.text(), "");
    EXPECT_EQ(again.config, loaded.config);
}

}  // namespace
}  // namespace moesaic
