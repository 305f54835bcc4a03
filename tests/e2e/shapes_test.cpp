// Odd shapes train without hanging and without NaN.
#include <cmath>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

/// Six experts, so that three ranks share them.
const Words kShapedRun{"train.steps=3",       "optimizer.schedule.warmup=1",        "train.log_every=1",
                       "model.moe.experts=6", "generalization.heldout_sequences=7", "train.eval_every=3"};

struct Shape {
    std::string name;
    Words overrides;
    std::vector<Ranks> ranks{mpirun(3), threads(3)};
};

std::ostream& operator<<(std::ostream& stream, const Shape& shape) {
    return stream << shape.name;
}

void expect_sound(const std::vector<Json>& records) {
    ASSERT_EQ(losses(records).size(), 3u);
    for (const auto& [step, loss] : losses(records)) {
        EXPECT_TRUE(std::isfinite(loss) && loss > 0 && loss < 7) << "step " << step << ": " << loss;
    }
    for (const Json& record : events(records, "step")) {
        for (const char* field : {"loss_aux", "loss_z", "grad_norm"}) {
            EXPECT_TRUE(record.at(field).is_number()) << field << ": " << record.at(field);
        }
    }
    const Json last = events(records, "eval").back();
    EXPECT_TRUE(last.at("heldout_loss").is_number()) << last;
    EXPECT_EQ(events(records, "end").back().at("status"), "done");
}

class Shapes : public testing::TestWithParam<Shape> {};

TEST_P(Shapes, TrainOnAnyRanks) {
    const ScratchFolder scratch;
    Words overrides = kShapedRun;
    overrides.insert(overrides.end(), GetParam().overrides.begin(), GetParam().overrides.end());
    const auto alone = train_tiny(scratch / "alone", kAlone, overrides);
    expect_sound(alone);
    for (const Ranks& ranks : GetParam().ranks) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const auto records = train_tiny(scratch / name_of(ranks), ranks, overrides);
        expect_sound(records);
        if (losses(records).size() != 3 || losses(alone).size() != 3) continue;
        EXPECT_EQ(losses(records).at(1), losses(alone).at(1));
        EXPECT_NEAR(losses(records).at(3), losses(alone).at(3), 1e-5 * losses(alone).at(3));
    }
}

INSTANTIATE_TEST_SUITE_P(
    Train, Shapes,
    testing::Values(
        Shape{"ranks_without_tokens",
              {"train.batch_sequences=1", "model.moe.experts=4"},
              {mpirun(4), threads(4)}},
        Shape{"batch_that_ranks_do_not_divide", {"train.batch_sequences=5", "train.micro_sequences=2"}},
        Shape{"one_token_in_all", {"train.batch_sequences=1", "task.data.seq_len=1"}},
        Shape{"experts_without_tokens",
              {"model.moe.experts=66", "model.moe.top_k=1", "model.moe.router.normalize=false",
               "train.batch_sequences=1", "task.data.seq_len=16"}},
        Shape{"every_token_to_every_expert", {"model.moe.top_k=6"}},
        Shape{"one_expert", {"model.moe.experts=1", "model.moe.top_k=1", "model.moe.router.normalize=false"}},
        Shape{"many_rounds", {"parallel.receive_budget=0.05"}},
        Shape{"every_second_layer", {"model.moe.every=2"}},
        Shape{"dense", {"model.moe.experts=0", "model.vocabulary=300"}},
        Shape{"tied_embeddings", {"model.tie_embeddings=true"}},
        Shape{"qk_norm_full", {"model.qk_norm=full", "model.kv_heads=2"}},
        Shape{"qk_norm_head_clipped", {"model.qk_norm=head", "model.clip_qkv=0.5", "model.kv_heads=1"}},
        Shape{"balance_of_sequences", {"model.moe.balance.scope=sequence"}},
        Shape{"balance_of_the_whole_batch",
              {"model.moe.balance.scope=global", "train.batch_sequences=5", "train.micro_sequences=2"}},
        Shape{"softmax_over_top_k", {"model.moe.router.score=softmax_over_top_k"}},
        Shape{"double_precision_whole_state",
              {"train.precision=fp64", "parallel.zero=0", "parallel.expert=1"}}),
    [](const auto& one) { return one.param.name; });

TEST(Shapes, MoreRowsThanTheTokenizerHasIds) {
    const ScratchFolder scratch;
    train_tiny(scratch / "out", kAlone, {"model.vocabulary=3000", "train.steps=0"});
    const CommandResult text = moesaic({"generate", scratch / "out/tiny", "--prompt", "a", "--tokens", "40"});
    EXPECT_EQ(text.code, 0) << text.text();
    EXPECT_EQ(text.out.size(), 42u) << "one byte a token";
    expect_failure(moesaic(tiny(scratch / "few", {"model.vocabulary=255"})), 2,
                   {"model.vocabulary: 255 rows", "the data have 256 ids"});
}

TEST(Train, AllTokensOnOneExpert) {
    // Where all tokens are alike, so are their activations at every position, and so is the router's choice.
    const ScratchFolder scratch;
    write_text(scratch / "alike.txt", std::string(20000, 'a'));
    Words overrides = kShapedRun;
    for (const std::string& one :
         {"task.data.path=" + (scratch / "alike.txt"), std::string("model.moe.top_k=1"),
          std::string("model.moe.router.normalize=false")}) {
        overrides.push_back(one);
    }
    for (const Ranks& ranks : {kAlone, mpirun(3), threads(3)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const auto records = train_tiny(scratch / name_of(ranks), ranks, overrides);
        ASSERT_EQ(losses(records).size(), 3u);
        for (const Json& record : events(records, "experts")) EXPECT_EQ(record.at("dead"), 5) << record;
        for (const Json& record : events(records, "step")) {
            EXPECT_TRUE(record.at("loss").is_number() && record.at("grad_norm").is_number()) << record;
            EXPECT_EQ(record.at("load_max_over_mean"), 6);
        }
    }
}

}  // namespace
}  // namespace moesaic::e2e
