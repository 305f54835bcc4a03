// Documents packed into one sequence train as documents alone do, on every layout.
#include <filesystem>
#include <fstream>

#include "launch/evaluation.h"
#include "runtime/base/philox.h"
#include "runtime/base/worse.h"
#include "tests/support/source_folder.h"
#include "tests/support/tiny_run.h"
#include "tests/support/training_run.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using Document = std::vector<i32>;

constexpr i64 kSeqLen = 16;

/// Documents of these lengths fill windows of 17 tokens.
const std::vector<std::vector<i64>>& packed_lengths() {
    static const std::vector<std::vector<i64>> kLengths{{5, 1, 8, 3}, {17}, {2, 2, 13}, {16, 1}, {1, 9, 7}};
    return kLengths;
}

Document document_of(i64 number, i64 length) {
    const Philox random(static_cast<u64>(number), "document");
    Document tokens;
    for (i64 i = 0; i < length; ++i)
        tokens.push_back(static_cast<i32>(random.bits(static_cast<u64>(i)) % 256));
    return tokens;
}

/// Windows, and where in each the document of every token begins.
struct Windows {
    std::vector<i32> tokens, documents;
    i64 count = 0;

    void add(const std::vector<Document>& packed) {
        ++count;
        i64 place = 0;
        for (const Document& document : packed) {
            tokens.insert(tokens.end(), document.begin(), document.end());
            documents.insert(documents.end(), document.size(), static_cast<i32>(place));
            place += std::ssize(document);
        }
        // What is missing are documents of a token each, which predict nothing.
        for (; place <= kSeqLen; ++place) {
            tokens.push_back(7);
            documents.push_back(static_cast<i32>(place));
        }
    }
    [[nodiscard]] BatchSource source() const {
        return [*this](i64, i64 first, i64 sequences, WindowBuffer out) {
            const i64 begin = first * (kSeqLen + 1), size = sequences * (kSeqLen + 1);
            std::copy_n(tokens.begin() + begin, size, out.tokens);
            if (out.documents != nullptr) std::copy_n(documents.begin() + begin, size, out.documents);
        };
    }
};

Windows windows_of(bool packed) {
    Windows windows;
    i64 number = 0;
    for (const std::vector<i64>& lengths : packed_lengths()) {
        std::vector<Document> together;
        for (const i64 length : lengths) together.push_back(document_of(number++, length));
        if (packed) {
            windows.add(together);
            continue;
        }
        for (const Document& document : together) windows.add({document});
    }
    return windows;
}

struct Layout {
    int world = 1, expert_parallel = 1;
};

/// One step; balance losses would count the fillers of the lonely documents.
TrainingOutcome one_step(const Windows& windows, Layout layout, bool mask, i64 micro_sequences) {
    const RunSetup setup = tiny_run({"model.moe.balance.aux=0", "model.moe.balance.z=0", "train.steps=5",
                                     fmt::format("train.micro_sequences={}", micro_sequences),
                                     fmt::format("train.batch_sequences={}", windows.count),
                                     fmt::format("task.data.document_mask={}", mask), "model.kv_heads=1"});
    TrainingRun run;
    run.config = setup.config;
    run.spec = setup.spec;
    run.batches = windows.source();
    run.world = layout.world;
    run.options.dtype = DType::f64;
    run.options.expert_parallel = layout.expert_parallel;
    run.last_step = 1;
    return train(run);
}

double worst_gradient(const TrainingOutcome& got, const TrainingOutcome& want) {
    EXPECT_EQ(got.gradients.size(), want.gradients.size());
    double worst = 0;
    for (const auto& [name, values] : want.gradients)
        worst = worse(worst, relative_l2(got.gradients.at(name), values));
    return worst;
}

TEST(DocumentMask, PackedDocumentsEqualDocumentsAlone) {
    i64 targets = 0;
    for (const std::vector<i64>& lengths : packed_lengths())
        for (const i64 length : lengths) targets += length - 1;
    const TrainingOutcome alone = one_step(windows_of(false), {1, 1}, true, 1);
    EXPECT_EQ(alone.steps[0].targets, targets);
    for (const Layout layout : {Layout{1, 1}, {2, 1}, {2, 2}, {3, 1}, {4, 2}, {8, 8}}) {
        for (const i64 micro_sequences : {1, 2}) {
            SCOPED_TRACE(fmt::format("{} ranks, expert-parallel {}, {} a micro-batch", layout.world,
                                     layout.expert_parallel, micro_sequences));
            const TrainingOutcome packed = one_step(windows_of(true), layout, true, micro_sequences);
            EXPECT_EQ(packed.steps[0].targets, targets);
            EXPECT_NEAR(packed.steps[0].loss, alone.steps[0].loss, 1e-12);
            EXPECT_LT(worst_gradient(packed, alone), 1e-11);
        }
    }
    const TrainingOutcome unmasked = one_step(windows_of(true), {1, 1}, false, 1);
    EXPECT_GT(worst_gradient(unmasked, alone), 1e-3) << "the comparison would not see a missing mask";
}

class MaskedData : public testing::Test {
  protected:
    /// Lines of 1 to 40 letters.
    void SetUp() override {
        std::ofstream file(scratch_ / "a.jsonl");
        for (i64 line = 0; line < 400; ++line) {
            std::string text;
            const i64 length = 1 + line * 7 % 40;
            for (i64 i = 0; i < length; ++i) text.push_back(static_cast<char>('a' + (line * i + i) % 26));
            file << "{\"text\": \"" << text << "\"}\n";
        }
    }
    [[nodiscard]] RunSetup setup(const std::string& more = "train.batch_sequences=5") const {
        return tiny_run({"task.data.path=" + scratch_.path(), "task.data.document_mask=true",
                         "task.data.validation=0.3", "train.micro_sequences=2", more});
    }

    ScratchFolder scratch_;
};

TEST_F(MaskedData, TrainingIsTheSameOnEveryLayout) {
    const RunSetup run_setup = setup();
    TrainingRun run;
    run.config = run_setup.config;
    run.spec = run_setup.spec;
    run.batches = [&](i64 step, i64 first, i64 count, WindowBuffer windows) {
        run_setup.dataset->training_batch(1, step, 5, first, count, windows);
    };
    run.last_step = 4;
    const TrainingOutcome one = train(run);
    for (const Layout layout : {Layout{2, 1}, {2, 2}, {3, 1}, {4, 4}, {8, 2}}) {
        SCOPED_TRACE(fmt::format("{} ranks, expert-parallel {}", layout.world, layout.expert_parallel));
        run.world = layout.world;
        run.options.expert_parallel = layout.expert_parallel;
        const TrainingOutcome outcome = train(run);
        EXPECT_EQ(outcome.steps[0].sequence_loss, one.steps[0].sequence_loss);
        for (std::size_t i = 0; i < one.steps.size(); ++i) {
            EXPECT_EQ(outcome.steps[i].targets, one.steps[i].targets);
            EXPECT_LT(outcome.steps[i].targets, 5 * kSeqLen);
            EXPECT_NEAR(outcome.steps[i].loss, one.steps[i].loss, 1e-5);
        }
    }
}

TEST_F(MaskedData, EvaluationCountsTargetsAndDomains) {
    std::filesystem::copy(MOESAIC_SOURCE_DIR "/configs/tiny.yaml", scratch_ / "b.txt");
    const RunSetup run_setup = setup("generalization.heldout_sequences=100");
    const std::vector<i64> windows = heldout_windows(run_setup);
    ASSERT_EQ(run_setup.dataset->domains().size(), 2u);
    std::vector<ShardScores> scores;
    for (const int ranks : {1, 2, 3}) {
        run_ranks(
            ranks,
            [&](Communicator& world) {
                RankRuntime runtime(run_setup.config, run_setup.spec, world, {});
                const ShardScores mine = evaluate_windows(runtime, run_setup, windows, true);
                if (world.rank() == 0) scores.push_back(mine);
            },
            60);
        EXPECT_EQ(scores.back().loss, scores.front().loss);
        EXPECT_EQ(scores.back().weight, scores.front().weight);
        const auto parts = scores_by_domain(*run_setup.dataset, windows, scores.back());
        const auto first = scores_by_domain(*run_setup.dataset, windows, scores.front());
        ASSERT_EQ(parts.size(), 2u);
        EXPECT_EQ(parts[0].name, "a.jsonl");
        EXPECT_EQ(parts[1].name, "b.txt");
        for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(parts[i].loss, first[i].loss) << "other bits";
        EXPECT_EQ(parts[0].sequences + parts[1].sequences, std::ssize(windows));
    }
    // Targets of a window, counted by hand.
    const auto domains = run_setup.dataset->domains();
    std::vector<i32> tokens(kSeqLen + 1), documents(kSeqLen + 1);
    double all = 0, sum = 0;
    for (std::size_t i = 0; i < windows.size(); ++i) {
        run_setup.dataset->validation_window(windows[i], {tokens.data(), documents.data()});
        i64 targets = 0;
        const bool lines = domains[run_setup.dataset->domain_of_validation(windows[i])] == "a.jsonl";
        for (i64 t = 0; t < kSeqLen; ++t)
            targets += lines && tokens[static_cast<std::size_t>(t)] == 0 ? 0 : 1;
        EXPECT_EQ(scores[0].weight[i] * kSeqLen, static_cast<double>(targets)) << "window " << i;
        all += static_cast<double>(targets);
        sum += static_cast<double>(targets) * scores[0].loss[i];
    }
    EXPECT_NEAR(scores[0].mean_loss(), sum / all, 1e-12);
}

}  // namespace
}  // namespace moesaic
