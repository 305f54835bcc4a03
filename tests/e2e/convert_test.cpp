// The binary's own models to Hugging Face's layout and back, and everything else that `convert` does.
#include "tests/e2e/command.h"
#include "tests/support/source_folder.h"

namespace moesaic::e2e {
namespace {

namespace fs = std::filesystem;

const std::string kFixtures = "tests/reference/fixtures/huggingface/";

TEST(Convert, ARunGoesOutAndComesBack) {
    const ScratchFolder scratch;
    train_tiny(scratch / "out", threads(2));
    const std::string run = scratch / "out/tiny", hf = scratch / "hf", back = scratch / "back";
    CommandResult result =
        moesaic({"convert", "export", run, hf, "--to", "hf"}, have_mpi() ? mpirun(2) : kAlone);
    ASSERT_EQ(result.code, 0) << result.text();
    EXPECT_EQ(occurrences(result.out, "as MixtralForCausalLM"), 1) << result.out;
    result =
        moesaic({"convert", "import", hf, back, "--set", "task.data.seq_len=64", "--set", "train.steps=24",
                 "--set", "generalization.heldout_sequences=64", "--set", "optimizer.schedule.warmup=2"});
    ASSERT_EQ(result.code, 0) << result.text();

    // The same model: the same weights, and the same losses to the last bit.
    StoredTensors before = read_tensors(run + "/checkpoints/step-00000020");
    std::erase_if(before, [](const auto& one) { return one.first.find("_moment") != std::string::npos; });
    expect_same_bytes(read_tensors(back + "/checkpoints/step-00000000"), before);
    const Json ours = Json::parse(moesaic({"eval", run, "--json"}).out);
    for (const Ranks& ranks : {kAlone, mpirun(2), threads(4)}) {
        if (!can_run(ranks)) continue;
        const CommandResult evaluated = moesaic({"eval", back, "--json"}, ranks);
        ASSERT_EQ(evaluated.code, 0) << evaluated.text();
        EXPECT_EQ(Json::parse(evaluated.out).at("heldout_loss"), ours.at("heldout_loss")) << name_of(ranks);
    }
    const Words sample{"generate", run, "--prompt", "The ", "--tokens", "20", "--temperature", "0"};
    Words same = sample;
    same[1] = back;
    EXPECT_EQ(moesaic(same).out, moesaic(sample).out);

    // And it trains on, leaving what was imported as it is.
    const StoredTensors imported = read_tensors(back + "/checkpoints/step-00000000");
    const Words train{"train", back + "/config.yaml", "--resume", back};
    result = moesaic(train, threads(2));
    ASSERT_EQ(result.code, 0) << result.text();
    const std::vector<Json> records = read_records(back);
    EXPECT_EQ(records.back().at("step"), 24);
    EXPECT_LT(losses(records).at(1), 4.5) << "not from scratch";
    const Json first = events(records, "eval").front();
    EXPECT_EQ(first.at("step"), 0);
    EXPECT_TRUE(first.at("bounds").contains("heldout")) << "these weights have met data";
    EXPECT_FALSE(first.at("train_unseen_loss").is_null());
    expect_same_bytes(read_tensors(back + "/checkpoints/step-00000000"), imported);
}

TEST(Convert, LogitsOnAnyRanks) {
    const ScratchFolder scratch;
    ASSERT_EQ(moesaic({"convert", "import", kFixtures + "qwen3_moe", scratch / "run"}).code, 0);
    const std::string tokens = scratch / "t.npy";
    // int32 [3, 4], as numpy.save writes it.
    std::string header = "{'descr': '<i4', 'fortran_order': False, 'shape': (3, 4), }";
    header.resize(117, ' ');
    std::string ids;
    for (char id = 0; id < 12; ++id) ids += std::string{id, 0, 0, 0};
    write_text(tokens, std::string("\x93NUMPY\x01\x00\x76\x00", 10) + header + "\n" + ids);
    const Words words{"eval", scratch / "run", "--tokens", tokens, "--logits"};
    std::string expected;
    for (const Ranks& ranks : {kAlone, mpirun(2), threads(4), threads(2)}) {
        if (!can_run(ranks)) continue;
        Words all = words;
        all.push_back(scratch / "l.npy");
        const CommandResult result = moesaic(all, ranks);
        ASSERT_EQ(result.code, 0) << result.text();
        const std::string bytes = read_text(scratch / "l.npy");
        EXPECT_EQ(bytes.size(), 128u + 3 * 4 * 40 * 4);
        if (expected.empty()) expected = bytes;
        EXPECT_TRUE(bytes == expected) << name_of(ranks);
    }
    expect_failure(moesaic({"eval", scratch / "run", "--tokens", tokens}), 2, {"give both"});
    write_text(tokens, std::string("\x93NUMPY\x01\x00\x76\x00", 10) + header + "\n" + ids.substr(4) +
                           std::string("\x28\0\0\0", 4));
    Words wrong = words;
    wrong.push_back(scratch / "m.npy");
    expect_failure(moesaic(wrong), 2, {"token 3 of sequence 2 is 40; the model knows 0 to 39"});
    EXPECT_FALSE(fs::exists(scratch / "m.npy"));
}

TEST(Convert, MoreAndFewerActiveExperts) {
    const ScratchFolder scratch;
    train_tiny(scratch / "out", kAlone, {"train.steps=5"});
    ASSERT_EQ(moesaic({"convert", "export", scratch / "out/tiny", scratch / "hf"}).code, 0);
    ASSERT_EQ(moesaic({"convert", "import", scratch / "hf", scratch / "run", "--set",
                       "generalization.heldout_sequences=8"})
                  .code,
              0);
    std::map<int, double> loss;
    for (const int k : {1, 2, 4}) {
        const CommandResult result =
            moesaic({"eval", scratch / "run", "--top-k", std::to_string(k), "--json"});
        ASSERT_EQ(result.code, 0) << result.text();
        loss[k] = Json::parse(result.out).at("heldout_loss");
    }
    EXPECT_EQ(loss[2], Json::parse(moesaic({"eval", scratch / "run", "--json"}).out).at("heldout_loss"));
    EXPECT_NE(loss[1], loss[2]);
    EXPECT_NE(loss[4], loss[2]);
    expect_failure(moesaic({"eval", scratch / "run", "--top-k", "5"}), 2,
                   {"a token cannot visit 5 of 4 experts"});
}

TEST(Convert, ATokenizerGoesAlong) {
    const ScratchFolder scratch;
    const std::string file = scratch / "tokenizer.json", run = scratch / "out/tiny", back = scratch / "back";
    fs::copy_file(std::string(MOESAIC_SOURCE_DIR) + "/tests/reference/tokenizers/llama3_style.json", file);
    train_tiny(scratch / "out", kAlone,
               {"train.steps=2", "optimizer.schedule.warmup=1", "task.data.tokenizer=" + file,
                "model.vocabulary=1000"});
    const Words generate{"generate", run, "--prompt", "naïve 好", "--tokens", "8", "--seed", "3"};
    const CommandResult sample = moesaic(generate);
    ASSERT_EQ(sample.code, 0) << sample.text();
    ASSERT_EQ(moesaic({"convert", "export", run, scratch / "hf"}).code, 0);
    EXPECT_EQ(read_text(scratch / "hf/tokenizer.json"), read_text(file));
    fs::remove(file);
    CommandResult result =
        moesaic({"convert", "import", scratch / "hf", back, "--set", "task.data.seq_len=64"});
    ASSERT_EQ(result.code, 0) << result.text();
    Words same = generate;
    same[1] = back;
    EXPECT_EQ(moesaic(same).out, sample.out);
    ASSERT_EQ(moesaic({"convert", "export", back, scratch / "again"}).code, 0);
    EXPECT_EQ(read_text(scratch / "again/tokenizer.json"), read_text(back + "/huggingface/tokenizer.json"));

    write_text(scratch / "hf/tokenizer.json", "{\"model\": {\"type\": \"Unigram\"}}");
    result = moesaic({"convert", "import", scratch / "hf", scratch / "bytes"});
    ASSERT_EQ(result.code, 0) << "the weights are good";
    EXPECT_EQ(occurrences(result.err, "cannot be the run's tokenizer"), 1) << result.text();
}

TEST(Convert, MistakesEndWithTwoAndLeaveNothing) {
    const ScratchFolder scratch;
    const std::string out = scratch / "out";
    expect_failure(moesaic({"convert", "import", scratch / "none", out}), 2, {"none/config.json"});
    expect_failure(moesaic({"convert", "export", scratch / "none", out}), 2, {"none"});
    expect_failure(moesaic({"convert", "export", scratch / "none", out, "--to", "gguf"}), 2, {"--to"});
    expect_failure(moesaic({"convert", "export", scratch / "none", out, "--dtype", "fp8"}), 2, {"--dtype"});
    expect_failure(moesaic({"convert"}), 2, {"subcommand"});
    fs::create_directory(out);
    write_text(out + "/mine", "text");
    expect_failure(moesaic({"convert", "import", kFixtures + "llama", out}), 2, {"exists already"});
    EXPECT_EQ(read_text(out + "/mine"), "text");

    train_tiny(scratch / "odd", kAlone, {"train.steps=0", "model.moe.every=2"});
    const CommandResult refused = moesaic({"convert", "export", scratch / "odd/tiny", scratch / "hf"});
    expect_failure(refused, 2,
                   {"MixtralForCausalLM: model.moe.every: 2", "OlmoeForCausalLM: ", "Qwen3MoeForCausalLM: "});
    CommandOptions full;
    full.largest_file = 10000;
    const CommandResult disk =
        moesaic({"convert", "import", kFixtures + "llama", scratch / "run"}, kAlone, full);
    EXPECT_EQ(disk.code, 1) << disk.text();
    EXPECT_FALSE(fs::exists(scratch / "run"));
    EXPECT_FALSE(fs::exists(scratch / "run.partial"));
}

TEST(Convert, UpcycleTrainReshardAudit) {
    const ScratchFolder scratch;
    train_tiny(scratch / "out", kAlone, {"model.moe.experts=0", "model.dense_hidden=32"});
    const std::string run = scratch / "mix";
    CommandResult result = moesaic({"convert", "upcycle", scratch / "out/tiny", run, "--experts", "4"});
    ASSERT_EQ(result.code, 0) << result.text();
    const double dense =
        Json::parse(moesaic({"eval", scratch / "out/tiny", "--json"}).out).at("heldout_loss");
    EXPECT_NEAR(Json::parse(moesaic({"eval", run, "--json"}).out).at("heldout_loss"), dense, 1e-6);
    // Experts are alike and their weights sum to 1: their number does not matter.
    for (const char* k : {"1", "3", "4"}) {
        const CommandResult other = moesaic({"eval", run, "--top-k", k, "--json"});
        EXPECT_NEAR(Json::parse(other.out).at("heldout_loss"), dense, 1e-6) << k << " active";
    }
    expect_failure(moesaic({"eval", scratch / "out/tiny", "--top-k", "1"}), 2, {"the model is dense"});
    EXPECT_EQ(moesaic({"convert", "audit", run}).code, 0);
    result = moesaic({"train", run + "/config.yaml", "--resume", run}, threads(4));
    ASSERT_EQ(result.code, 0) << result.text();
    EXPECT_LT(events(read_records(run), "eval").back().at("heldout_loss"), dense);

    result = moesaic({"convert", "reshard", run, scratch / "re", "--shards", "3"});
    ASSERT_EQ(result.code, 0) << result.text();
    const std::string step = "/checkpoints/step-00000020";
    expect_same_bytes(read_tensors(scratch / ("re" + step)), read_tensors(run + step));
    result = moesaic({"convert", "audit", scratch / "re", "--json"});
    ASSERT_EQ(result.code, 0) << result.text();
    EXPECT_EQ(Json::parse(result.out).at("shards"), 3);
    const std::string shard = scratch / ("re" + step + "/shard-00001-of-00003.safetensors");
    std::string bytes = read_text(shard);
    bytes[bytes.size() / 2] ^= 4;
    write_text(shard, bytes);
    result = moesaic({"convert", "audit", scratch / "re"});
    EXPECT_EQ(result.code, 3) << result.text();
    EXPECT_EQ(occurrences(result.out, "damaged shard"), 1) << result.text();
}

}  // namespace
}  // namespace moesaic::e2e
