// bf16 runs from end to end: training, resuming, evaluating, changing precision on the way; recomputation;
// and the memory that --check foretells.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

Words every_step(const Words& more) {
    Words words{"train.log_every=1"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

/// Both runs recorded these steps, with losses this close.
void expect_near(const std::vector<Json>& left, const std::vector<Json>& right, double distance) {
    const std::map<i64, double> want = losses(right);
    int compared = 0;
    for (const auto& [step, loss] : losses(left)) {
        if (!want.contains(step)) continue;
        EXPECT_NEAR(loss, want.at(step), distance) << "step " << step;
        ++compared;
    }
    EXPECT_GT(compared, 5);
}

TEST(Bfloat16Run, ResumesBitForBitAndFollowsSinglePrecision) {
    for (const Ranks& ranks : {kAlone, mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const ScratchFolder scratch;
        const Words narrow = every_step({"train.precision=bf16"});
        const auto straight = train_tiny(scratch / "straight", ranks, narrow);
        const auto resumed = train_tiny(scratch / "other", ranks, narrow,
                                        {"--resume", checkpoint_of(scratch / "straight", 10)});
        const std::map<i64, double> want = losses(straight);
        EXPECT_EQ(losses(resumed).size(), 10u);
        for (const auto& [step, loss] : losses(resumed)) EXPECT_EQ(loss, want.at(step)) << step;
        const StoredTensors stored = read_tensors(checkpoint_of(scratch / "straight", 20));
        expect_same_bytes(read_tensors(checkpoint_of(scratch / "other", 20)), stored);
        for (const auto& [name, tensor] : stored) EXPECT_EQ(tensor.dtype, "F32") << name;
        expect_near(straight, train_tiny(scratch / "wide", ranks, every_step({})), 0.02);
    }
}

TEST(Bfloat16Run, IsEvaluatedAndGeneratesFromItsCheckpoint) {
    const ScratchFolder scratch;
    const auto records = train_tiny(scratch / "out", kAlone, {"train.precision=bf16"});
    const CommandResult result = moesaic({"eval", scratch / "out/tiny", "--json"}, threads(2));
    ASSERT_EQ(result.code, 0) << result.text();
    EXPECT_EQ(Json::parse(result.out).at("heldout_loss"), events(records, "eval").back().at("heldout_loss"));
    const CommandResult text =
        moesaic({"generate", scratch / "out/tiny", "--prompt", "The ", "--tokens", "5"});
    EXPECT_EQ(text.code, 0) << text.text();
}

TEST(Bfloat16Run, PrecisionMayChangeWhereARunGoesOn) {
    const ScratchFolder scratch;
    const Words names{"fp32", "bf16", "fp64"};
    for (const std::string& from : names) {
        const auto before = train_tiny(scratch / from, kAlone, every_step({"train.precision=" + from}));
        for (const std::string& to : names) {
            SCOPED_TRACE(from + " to " + to);
            const auto after =
                train_tiny(scratch / (from + to), kAlone, every_step({"train.precision=" + to}),
                           {"--resume", checkpoint_of(scratch / from, 10)});
            expect_near(after, before, 0.02);
        }
    }
}

TEST(Bfloat16Run, PassesTheLayoutCertificate) {
    const CommandResult result = moesaic({"verify", "configs/tiny.yaml", "--set", "train.precision=bf16",
                                          "--set", "train.recompute=layer", "--layouts", "1,2,4"});
    EXPECT_EQ(result.code, 0) << result.text();
}

TEST(Recomputation, LeavesNoTraceInTheNumbers) {
    const ScratchFolder scratch;
    const auto plain = train_tiny(scratch / "plain", threads(2), every_step({}));
    const auto again = train_tiny(scratch / "again", threads(2), every_step({"train.recompute=layer"}));
    EXPECT_EQ(losses(again), losses(plain));
    EXPECT_LT(events(again, "step").back().at("memory_bytes"),
              events(plain, "step").back().at("memory_bytes"));
    EXPECT_GT(events(again, "step").back().at("exchange_bytes"),
              events(plain, "step").back().at("exchange_bytes"));
}

/// The number before "MiB" in the line that begins with `word`, in bytes.
double stated_bytes(const std::string& text, const std::string& word) {
    for (const std::string& line : lines_of(text)) {
        if (line.rfind(word, 0) == 0) return std::atof(line.c_str() + word.size()) * (1 << 20);
    }
    ADD_FAILURE() << "no line of " << word << " in\n" << text;
    return 0;
}

/// A model whose memory is more than the program's own, three steps long.
const Words kLarger{"model.width=128",
                    "model.layers=4",
                    "model.moe.hidden=256",
                    "model.moe.experts=8",
                    "task.data.seq_len=256",
                    "train.micro_sequences=4",
                    "train.batch_sequences=8",
                    "train.steps=3",
                    "optimizer.schedule.warmup=1",
                    "train.log_every=1",
                    "generalization.heldout_sequences=8",
                    "generalization.probe_sequences=8"};

TEST(Check, ForetellsTheMemoryOfTheRun) {
    for (const char* how : {"train.precision=fp32", "train.precision=bf16", "train.recompute=layer"}) {
        SCOPED_TRACE(how);
        const ScratchFolder scratch;
        Words overrides = kLarger;
        overrides.emplace_back(how);
        const CommandResult check = moesaic(tiny(scratch / "out", overrides, {"--check"}));
        ASSERT_EQ(check.code, 0) << check.text();
        const CommandResult run = moesaic(tiny(scratch / "out", overrides));
        ASSERT_EQ(run.code, 0) << run.text();
        const auto pool =
            events(read_records(scratch / "out/tiny"), "step").back().at("memory_bytes").get<double>();
        EXPECT_NEAR(stated_bytes(check.out, "memory"), pool, 0.1 * pool) << check.out;
        const auto process = static_cast<double>(run.most_resident_bytes);
        EXPECT_NEAR(stated_bytes(check.out, "process"), process, 0.1 * process) << check.out;
    }
}

}  // namespace
}  // namespace moesaic::e2e
