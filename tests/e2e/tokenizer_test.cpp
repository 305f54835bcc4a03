// A run with a tokenizer's file: trained, resumed, evaluated and sampled, and what happens when the file
// changes or moves.
#include <cmath>
#include <filesystem>

#include "tests/e2e/command.h"
#include "tests/support/source_folder.h"

namespace moesaic::e2e {
namespace {

namespace fs = std::filesystem;

const std::string kStyles = std::string(MOESAIC_SOURCE_DIR) + "/tests/reference/tokenizers/";

TEST(Tokenizer, ARunKeepsToItsTokenizerWhereverTheFileIs) {
    const ScratchFolder scratch;
    const std::string file = scratch / "tokenizer.json", moved = scratch / "moved/tokenizer.json";
    fs::copy_file(kStyles + "llama3_style.json", file);
    const Words overrides{"task.data.tokenizer=" + file, "train.steps=4", "train.checkpoint_every=2",
                          "optimizer.schedule.warmup=2"};
    const std::vector<Json> records = train_tiny(scratch / "out", threads(2), overrides);
    const std::string run = scratch / "out/tiny";
    EXPECT_NEAR(events(records, "eval").front().at("heldout_loss"), std::log(702.0), 0.1);

    const Words generate{"generate", run, "--prompt", "naïve 好", "--tokens", "8", "--seed", "3"};
    const CommandResult sample = moesaic(generate);
    ASSERT_EQ(sample.code, 0) << sample.text();
    EXPECT_EQ(sample.out.rfind("naïve 好", 0), 0u) << sample.out;

    fs::create_directories(scratch / "moved");
    fs::rename(file, moved);
    expect_failure(moesaic(generate), 2, {"tokenizer '" + file + "': there is no such name, file or folder"});
    const Words there{"--set", "task.data.tokenizer=" + (scratch / "moved")};
    Words generate_there = generate, eval_there{"eval", run, "--json"};
    generate_there.insert(generate_there.end(), there.begin(), there.end());
    eval_there.insert(eval_there.end(), there.begin(), there.end());
    EXPECT_EQ(moesaic(generate_there).out, sample.out);
    const CommandResult evaluation = moesaic(eval_there);
    ASSERT_EQ(evaluation.code, 0) << evaluation.text();
    EXPECT_NEAR(Json::parse(evaluation.out).at("heldout_loss"),
                events(records, "eval").back().at("heldout_loss"), 1e-6);

    // As many tokens, other ids: only the fingerprint tells.
    std::string text = read_text(moved);
    const std::size_t at = text.find("\"!\":");
    ASSERT_NE(at, std::string::npos);
    write_text(moved, text.substr(0, at) + " " + text.substr(at));
    for (const Words& words :
         {generate_there, eval_there,
          tiny(scratch / "out", {"task.data.tokenizer=" + moved, "train.steps=6"}, {"--resume", "auto"})}) {
        expect_failure(moesaic(words), 2, {"was trained with another tokenizer: xxh64:"});
    }
}

TEST(Tokenizer, ATrainingStepFromGpt2sMerges) {
    const ScratchFolder scratch;
    const std::vector<Json> records =
        train_tiny(scratch / "out", threads(2),
                   {"task.data.tokenizer=configs/data/gpt2-vocab.bpe", "train.steps=1",
                    "train.batch_sequences=2", "optimizer.schedule.warmup=1",
                    "generalization.heldout_sequences=2", "generalization.probe_sequences=2"});
    EXPECT_NEAR(events(records, "step").front().at("loss"), std::log(50257.0), 0.1);
    const CommandResult check = moesaic({"train", "configs/tiny.yaml", "--check", "--set",
                                         "task.data.tokenizer=configs/data/gpt2-vocab.bpe"});
    EXPECT_NE(check.out.find("tokenizer: GPT-2 byte-level BPE of configs/data/"), std::string::npos)
        << check.text();
}

TEST(Tokenizer, AWrongFileIsTheUsersMistake) {
    const ScratchFolder scratch;
    write_text(scratch / "merges.txt", "#version: 0.2\na b\nab cd\n");
    expect_failure(
        moesaic(tiny(scratch / "out", {"task.data.tokenizer=" + (scratch / "merges.txt")}), mpirun(2)), 2,
        {"merges.txt:3: 'cd' is no token"});
    EXPECT_FALSE(fs::exists(scratch / "out"));
}

}  // namespace
}  // namespace moesaic::e2e
