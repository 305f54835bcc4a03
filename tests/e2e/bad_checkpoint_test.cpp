// Damaged and incomplete checkpoints are named and refused; a full disk ends the run and harms nothing.
#include <filesystem>
#include <map>

#include "runtime/checkpoint/checkpoint_folder.h"
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

namespace fs = std::filesystem;

class BadCheckpoint : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        scratch_ = new ScratchFolder;
        train_tiny(*scratch_ / "good", threads(2), {"train.steps=10"});
    }
    static void TearDownTestSuite() { delete scratch_; }

    /// A copy of a good checkpoint, to be damaged.
    static std::string copy(const std::string& name) {
        const std::string folder = *scratch_ / (name + "/step-00000010");
        fs::create_directories(*scratch_ / name);
        fs::copy(*scratch_ / "good/tiny/checkpoints/step-00000010", folder);
        return folder;
    }
    static void flip_bit(const std::string& file, std::size_t at) {
        std::string bytes = read_text(file);
        ASSERT_GT(bytes.size(), at);
        bytes[at] = static_cast<char>(bytes[at] ^ 4);
        write_text(file, bytes);
    }
    /// eval and train --resume refuse it; `eval` on each kind of ranks.
    static void expect_refused(const std::string& folder, int code, const std::string& text) {
        for (const Ranks& ranks : {kAlone, mpirun(2), threads(3)}) {
            if (!can_run(ranks)) continue;
            SCOPED_TRACE(name_of(ranks));
            const CommandResult result = moesaic({"eval", folder}, ranks);
            expect_failure(result, code, {text});
            EXPECT_LE(occurrences(result.err, "error: "), 1) << result.text();
        }
        for (const Ranks& ranks : {kAlone, mpirun(2)}) {
            if (!can_run(ranks)) continue;
            SCOPED_TRACE("train, " + name_of(ranks));
            expect_failure(moesaic(tiny(*scratch_ / "out", {}, {"--resume", folder}), ranks), code, {text});
        }
        EXPECT_EQ(moesaic({"generate", folder, "--prompt", "a", "--tokens", "1"}).code, code);
    }

    static ScratchFolder* scratch_;
    const std::string shard_ = "/shard-00001-of-00002.safetensors";
};

ScratchFolder* BadCheckpoint::scratch_ = nullptr;

TEST_F(BadCheckpoint, TruncatedShard) {
    const std::string folder = copy("truncated");
    fs::resize_file(folder + shard_, fs::file_size(folder + shard_) - 100);
    expect_refused(folder, 1, folder + shard_ + ": truncated shard: expected ");
}

TEST_F(BadCheckpoint, BitFlippedShard) {
    const std::string folder = copy("flipped");
    flip_bit(folder + shard_, fs::file_size(folder + shard_) - 1000);
    expect_refused(folder, 1, folder + shard_ + ": damaged shard: expected checksum ");
}

TEST_F(BadCheckpoint, MissingShard) {
    const std::string folder = copy("shardless");
    fs::remove(folder + shard_);
    expect_refused(folder, 1, folder + shard_ + ": ");
}

TEST_F(BadCheckpoint, BitFlippedManifest) {
    const std::string folder = copy("flipped_manifest");
    flip_bit(folder + "/manifest.json", 300);
    expect_refused(folder, 1, folder + "/manifest.json: damaged manifest: ");
}

TEST_F(BadCheckpoint, MissingManifest) {
    const std::string folder = copy("incomplete");
    fs::remove(folder + "/manifest.json");
    expect_refused(folder, 2, folder + ": the checkpoint is incomplete: ");
}

TEST_F(BadCheckpoint, OfAnotherModel) {
    const std::string folder = copy("other_model");
    for (const Ranks& ranks : {kAlone, mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const CommandResult result =
            moesaic(tiny(*scratch_ / "out", {"model.width=64"}, {"--resume", folder}), ranks);
        expect_failure(result, 2, {"model.width: 32 in the checkpoint, 64 here"});
    }
}

/// Whose tensors would all be found, or whose shapes all fit.
TEST(ResumeAsAnotherModel, IsRefusedByItsKeys) {
    const ScratchFolder scratch;
    const std::string out = scratch / "out";
    const Words trained{"train.steps=5", "model.layers=2", "model.moe.shared_experts=1",
                        "model.qk_norm=head"};
    const auto with = [&](const Words& changes) {
        Words all = trained;
        all.insert(all.end(), changes.begin(), changes.end());
        return all;
    };
    train_tiny(out, kAlone, trained);
    const std::map<std::string, std::string> changes{
        {"model.layers=1", "model.layers: 2 in the checkpoint, 1 here"},
        {"model.moe.shared_experts=0", "model.moe.shared_experts: 1 in the checkpoint, 0 here"},
        {"model.qk_norm=none", "model.qk_norm: head in the checkpoint, none here"},
        {"model.tie_embeddings=true", "model.tie_embeddings: false in the checkpoint, true here"},
        {"model.moe.activation=gelu", "model.moe.activation: swiglu in the checkpoint, gelu here"},
        {"model.moe.top_k=1", "model.moe.top_k: 2 in the checkpoint, 1 here"},
        {"model.rope_theta=500", "model.rope_theta: 10000 in the checkpoint, 500 here"},
        {"model.moe.router.normalize=false",
         "model.moe.router.normalize: true in the checkpoint, false here"}};
    for (const auto& [change, text] : changes) {
        const Words changed = with({change, "model.moe.router.score=softmax"});
        expect_failure(moesaic(tiny(out, changed, {"--resume", "auto"})), 2, {"is of another model", text});
    }
    // What only training is about may change, and keys that come to the same.
    const auto records = train_tiny(
        out, kAlone,
        with({"train.steps=6", "model.moe.balance.aux=0.02", "model.init_std=0.1",
              "model.moe.capacity={factor: 2}", "model.moe.router.normalize=true", "model.dense_hidden=64"}),
        {"--resume", "auto"});
    EXPECT_EQ(events(records, "end").back().at("step"), 6);
    // Other commands read tensors too.
    expect_failure(
        moesaic({"eval", out + "/tiny", "--set", "model.layers=1"}), 2,
        {"is of another model", "this one has no place for", "\"model.layers.1.input_layernorm.weight\""});
}

TEST_F(BadCheckpoint, ARefusedOneLeavesTheEarlierRunInPlace) {
    const std::string folder = copy("refused");
    flip_bit(folder + shard_, fs::file_size(folder + shard_) - 1000);
    train_tiny(*scratch_ / "kept", kAlone, {"train.steps=5"});
    expect_failure(moesaic(tiny(*scratch_ / "kept", {}, {"--resume", folder})), 1, {"damaged shard"});
    EXPECT_EQ(moesaic({"eval", *scratch_ / "kept/tiny"}).code, 0);
}

TEST(FullDisk, EndsTheRunAndKeepsEarlierCheckpoints) {
    for (const Ranks& ranks : {kAlone, threads(2)}) {
        SCOPED_TRACE(name_of(ranks));
        const ScratchFolder scratch;
        const std::string out = scratch / "out";
        train_tiny(out, ranks, {"train.steps=10"});
        CommandOptions options;
        options.largest_file = 100 << 10;
        const CommandResult result = moesaic(tiny(out, {}, {"--resume", "auto"}), ranks, options);
        expect_failure(result, 1, {"/step-00000020/shard-00000-of-", "File too large", "error: "});
        EXPECT_EQ(occurrences(result.err, "step 20"), ranks.count == 1 ? 0 : 1) << result.text();
        EXPECT_EQ(find_latest(out + "/tiny"), out + "/tiny/checkpoints/step-00000010");
        EXPECT_FALSE(fs::exists(out + "/tiny/checkpoints/step-00000020")) << "no rest fills the disk";
        EXPECT_EQ(moesaic({"eval", out + "/tiny/checkpoints/step-00000000"}).code, 0);
        EXPECT_EQ(moesaic({"eval", out + "/tiny"}).code, 0);
        const auto records = train_tiny(out, ranks, {}, {"--resume", "auto"});
        EXPECT_EQ(losses(records).size(), 5u) << "with space again it goes on";
    }
}

TEST(FullDisk, UnderMpirunTheRankIsNamedOnce) {
    if (!have_mpi()) GTEST_SKIP() << "built without MPI";
    if (Command({"unshare", "-m", "true"}).wait().code != 0) GTEST_SKIP() << "may not mount a small disk";
    const ScratchFolder scratch;
    std::string train, evaluate;
    for (const std::string& word : moesaic_words(tiny("$1"), mpirun(2))) train += "\"" + word + "\" ";
    for (const std::string& word : moesaic_words({"eval", "$1/tiny"})) evaluate += "\"" + word + "\" ";
    CommandOptions options;
    options.environment = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"}, {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}};
    const CommandResult result = Command({"unshare", "-m", "sh", "-c",
                                          "mount -t tmpfs -o size=1m none \"$1\" || exit 99; " + train +
                                              "; code=$?; " + evaluate + " || exit 98; exit $code",
                                          "sh", scratch.path()},
                                         options)
                                     .wait();
    if (result.code == 99) GTEST_SKIP() << "may not mount a small disk";
    EXPECT_EQ(result.code, 1) << result.text();
    EXPECT_EQ(occurrences(result.err, "error: "), 1) << result.text();
    EXPECT_EQ(occurrences(result.out, "could not write its part of the checkpoint of step 10"), 1)
        << "survived: " << result.text();
    EXPECT_EQ(occurrences(result.err, " of 2, step 20: "), 1) << "the last one: " << result.text();
    EXPECT_EQ(occurrences(result.out, "step-00000000 (step 0)"), 1) << result.text();
}

}  // namespace
}  // namespace moesaic::e2e
