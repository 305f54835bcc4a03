// Training data of every format through the binary: the same losses, sources of a blend, wrong ids, prepare,
// inspect.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "runtime/base/error.h"
#include "runtime/data/sampler.h"
#include "tests/e2e/command.h"
#include "tests/support/source_folder.h"

namespace moesaic::e2e {
namespace {

namespace fs = std::filesystem;

std::string some_text() {
    return read_text(std::string(MOESAIC_SOURCE_DIR) + "/configs/data/quad/opticks.txt").substr(0, 20000);
}

std::string json_line(const std::string& text) {
    return Json{{"text", text}}.dump() + "\n";
}

const Words kThreeSteps{"train.steps=3", "train.eval_every=3", "train.log_every=1",
                        "optimizer.schedule.warmup=1"};

/// Step to loss of a short run on other data.
std::map<i64, double> losses_of(const std::string& out, const Words& data, const Ranks& ranks = kAlone) {
    Words overrides = kThreeSteps;
    for (const std::string& key : data) overrides.push_back("task.data." + key);
    return losses(train_tiny(out, ranks, overrides));
}

std::string prepared(const Words& arguments) {
    Words words{"data", "prepare"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const CommandResult result = moesaic(words);
    EXPECT_EQ(result.code, 0) << result.text();
    return result.out;
}

/// The keys of the line that `data prepare` ends with.
Words keys_of(const std::string& output) {
    const std::string line = lines_of(output).back();
    const std::string head = "task: {data: {";
    EXPECT_TRUE(line.starts_with(head)) << line;
    std::string inner = line.substr(head.size(), line.size() - head.size() - 2);
    Words keys;
    while (!inner.empty()) {
        const std::size_t comma = inner.find(", ");
        const std::string one = inner.substr(0, comma);
        keys.push_back(one.substr(0, one.find(": ")) + "=" + one.substr(one.find(": ") + 2));
        inner = comma == std::string::npos ? "" : inner.substr(comma + 2);
    }
    return keys;
}

TEST(DataFormats, EveryFormatTrainsAsItsTextDoes) {
    const ScratchFolder scratch;
    write_text(scratch / "a.txt", some_text());
    const auto expected = losses_of(scratch / "text", {"path=" + scratch / "a.txt"});
    ASSERT_EQ(expected.size(), 3u);
    write_text(scratch / "a.jsonl", json_line(some_text()));
    EXPECT_EQ(losses_of(scratch / "jsonl", {"path=" + scratch / "a.jsonl", "end_of_document=none"}),
              expected);
    for (const char* format : {"megatron", "llmc", "nanogpt", "npy"}) {
        SCOPED_TRACE(format);
        const std::string output =
            prepared({scratch / "a.txt", "-o", scratch / (std::string(format) + "/p.q"), "--to", format});
        EXPECT_EQ(losses_of(scratch / (std::string(format) + "_run"), keys_of(output)), expected) << output;
    }
    EXPECT_EQ(losses_of(scratch / "prefix", {"path=" + scratch / "megatron/p.q"}, threads(2)), expected);
    // Ids alone, with no tokenizer at all.
    EXPECT_EQ(losses_of(scratch / "none",
                        {"path=" + scratch / "nanogpt/p.q.bin", "tokenizer=none", "vocabulary=256"}),
              expected);
}

TEST(DataFormats, DocumentsOfJsonLinesAndOfAPairAreMaskedAlike) {
    const ScratchFolder scratch;
    std::string lines, text = some_text();
    for (std::size_t at = 0; at < text.size(); at += 50 + at % 97)
        lines += json_line(text.substr(at, 50 + at % 97));
    write_text(scratch / "a.jsonl", lines);
    const Words mask{"path=" + scratch / "a.jsonl", "document_mask=true"};
    const auto expected = losses_of(scratch / "jsonl", mask);
    EXPECT_EQ(losses_of(scratch / "threads", mask, threads(2)).at(1), expected.at(1));
    EXPECT_NE(losses_of(scratch / "plain", {"path=" + scratch / "a.jsonl"}), expected);
    for (const char* format : {"megatron", "llmc", "nanogpt", "npy"}) {
        SCOPED_TRACE(format);
        Words keys =
            keys_of(prepared({scratch / "a.jsonl", "-o", scratch / format, "--to", format, "--append-eod"}));
        keys.emplace_back("document_mask=true");
        EXPECT_EQ(losses_of(scratch / (std::string(format) + "_run"), keys), expected);
    }
    const CommandResult verify = moesaic({"verify", "configs/tiny.yaml", "--layouts", "1,2", "--set",
                                          "task.data." + mask[0], "--set", "task.data." + mask[1]});
    EXPECT_EQ(verify.code, 0) << verify.text();
}

TEST(DataFormats, ABlendSaysItsSourcesLosses) {
    const ScratchFolder scratch;
    const std::string file = scratch / "blend.yaml";
    write_text(file, read_text(std::string(MOESAIC_SOURCE_DIR) + "/configs/tiny.yaml"));
    const std::string sources =
        "task.data.sources=[{path: configs/data/quad/opticks.txt, weight: 3}, "
        "{path: configs/data/quad/set.mm.txt, name: proofs}, {path: nowhere, weight: 0}]";
    const Words overrides{"train.steps=5", "task.data.path=configs/data/quad", sources};
    // In tiny.yaml the path is the file's, the sources are the override's, which win.
    const auto records = train_tiny(scratch / "out", threads(2), {"train.steps=5", sources});
    const Json last = events(records, "eval").back();
    EXPECT_EQ(last.at("heldout_by_source").size(), 2u) << last;
    EXPECT_TRUE(last.at("heldout_by_source").contains("opticks")) << last;
    EXPECT_TRUE(last.at("heldout_by_source").contains("proofs")) << last;
    const CommandResult eval = moesaic({"eval", scratch / "out/tiny", "--json"}, threads(3));
    ASSERT_EQ(eval.code, 0) << eval.text();
    EXPECT_EQ(Json::parse(eval.out).at("heldout_by_source").dump(), last.at("heldout_by_source").dump())
        << "the same bits on other ranks";
    const CommandResult table = moesaic({"eval", scratch / "out/tiny"});
    EXPECT_EQ(occurrences(table.out, "    proofs "), 1) << table.text();
    expect_failure(
        moesaic({"train", file, "--out", scratch / "x", "--set", overrides[1], "--set", overrides[2]}), 2,
        {"task.data.sources: stands beside task.data.path; keep one of the two"});
}

/// The id is read by one rank, at step 3: no other sees it.
TEST(DataFormats, AWrongIdFoundOnTheWayEndsTheRun) {
    const ScratchFolder scratch;
    const std::string file = scratch / "large.bin";
    write_text(file, "");
    fs::resize_file(file, 68 << 20);  // a hole of zeros, too large to be checked when it is opened
    const auto tokenizer = make_tokenizer("bytes");
    const Dataset dataset({file, 64, 0.1}, *tokenizer);
    const i64 token = dataset.training_sequence(1, 17) * 64 + 30;
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(2 * token);
    stream.write("\x2C\x01", 2);  // 300
    stream.close();
    for (const Ranks& ranks : {kAlone, threads(2), mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const CommandResult result =
            moesaic(tiny(scratch / name_of(ranks), {"task.data.path=" + file}), ranks);
        expect_failure(result, 2,
                       {fmt::format("{}: byte {}: token {} has id 300, outside of the vocabulary of 256",
                                    file, 2 * token, token)});
        EXPECT_FALSE(result.timed_out);
    }
}

TEST(DataPrepare, CutsIntoShardsAndRoundTrips) {
    const ScratchFolder scratch;
    std::string lines;
    for (int i = 0; i < 40; ++i) lines += json_line("document " + std::to_string(i));
    write_text(scratch / "a.jsonl", lines);
    const std::string first =
        prepared({scratch / "a.jsonl", "-o", scratch / "first/p", "--to", "npy", "--append-eod"});
    const std::string expected = read_text(scratch / "first/p.npy");
    for (const char* format : {"megatron", "llmc", "nanogpt", "npy"}) {
        SCOPED_TRACE(format);
        const std::string prefix = scratch / (std::string(format) + "/p");
        const std::string output =
            prepared({scratch / "first/p.npy", "-o", prefix, "--to", format, "--shard-tokens", "100",
                      "--vocabulary", "256", "--end-of-document", "0"});
        EXPECT_GT(std::distance(fs::directory_iterator(scratch / format), fs::directory_iterator()), 4)
            << output;
        std::string pattern = keys_of(output).front().substr(5);
        std::erase(pattern, '"');
        prepared(
            {pattern, "-o", scratch / (std::string(format) + "_back"), "--to", "npy", "--vocabulary", "256"});
        EXPECT_EQ(read_text(scratch / (std::string(format) + "_back.npy")), expected);
    }
}

TEST(DataPrepare, LeavesNothingBehindWhenItFails) {
    const ScratchFolder scratch;
    write_text(scratch / "a.jsonl", json_line(some_text()) + "{\"text\": 5}\n");
    for (const char* format : {"megatron", "llmc", "nanogpt", "npy"}) {
        SCOPED_TRACE(format);
        const Words words{"data", "prepare", scratch / "a.jsonl", "-o", scratch / "out/p", "--to", format};
        expect_failure(moesaic(words), 2, {"a.jsonl:2: member 'text' is a number, not a string"});
        EXPECT_TRUE(fs::is_empty(scratch / "out"));
        write_text(scratch / "b.txt", some_text());
        Words full = words;
        full[2] = scratch / "b.txt";
        CommandOptions options;
        options.largest_file = 30000;
        const CommandResult result = moesaic(full, kAlone, options);
        EXPECT_EQ(result.code, 1) << result.text();
        EXPECT_TRUE(fs::is_empty(scratch / "out"));
    }
    expect_failure(moesaic({"data", "prepare", scratch / "b.txt", "-o", scratch / "p", "--to", "parquet"}), 2,
                   {"--to"});
    expect_failure(moesaic({"data", "prepare", scratch / "none", "-o", scratch / "p", "--to", "npy"}), 2,
                   {"no such file or folder"});
    write_text(scratch / "c.bin", some_text());
    expect_failure(moesaic({"data", "prepare", scratch / "c.bin", "-o", scratch / "p", "--to", "npy"}), 2,
                   {"--vocabulary: without a tokenizer"});
}

TEST(DataInspect, SaysWhatIsThereAndWhatIsOdd) {
    const ScratchFolder scratch;
    std::string lines;
    for (int i = 0; i < 40; ++i) lines += json_line("document " + std::to_string(i));
    write_text(scratch / "a.jsonl", lines);
    const CommandResult text = moesaic({"data", "inspect", scratch / "a.jsonl", "--seq-len", "16"});
    ASSERT_EQ(text.code, 0) << text.text();
    EXPECT_EQ(occurrences(text.out, "a.jsonl: JSON Lines"), 1) << text.out;
    EXPECT_EQ(occurrences(text.out, "documents  40; shortest 11, mean 11.8, longest 12 tokens"), 1)
        << text.out;
    EXPECT_EQ(occurrences(text.out, "odd: "), 0) << text.out;
    prepared({scratch / "a.jsonl", "-o", scratch / "p", "--to", "megatron", "--append-eod"});
    const CommandResult json = moesaic({"data", "inspect", "--json", scratch / "p", "--tokenizer", "bytes"});
    ASSERT_EQ(json.code, 0) << json.text();
    const Json total = Json::parse(json.out).at("total");
    EXPECT_EQ(total.at("tokens"), 470);
    EXPECT_EQ(total.at("documents"), 40);
    EXPECT_EQ(total.at("largest_id"), 'u');
    const std::string wide = std::string("\x01\0\0\0\x02\0\0\0\x03\0\0\0", 12);
    std::string ids;
    for (int i = 0; i < 200; ++i) ids += wide;
    write_text(scratch / "wide.bin", ids);
    EXPECT_EQ(occurrences(moesaic({"data", "inspect", scratch / "wide.bin"}).out, "set token_type: uint32"),
              1);
    const CommandResult config = moesaic({"data", "inspect", "configs/quad.yaml", "--json"});
    EXPECT_EQ(Json::parse(config.out).at("files").size(), 4u) << config.text();
    EXPECT_EQ(Json::parse(config.out).at("total").at("tokens"), 1036942);
    const Words given{"data", "inspect", "configs/quad.yaml", "--seq-len", "1000", "--validation", "0.5"};
    EXPECT_GE(occurrences(moesaic(given).out, "518 training and 518 held-out of 1,000 tokens"), 1)
        << moesaic(given).text();
    expect_failure(moesaic({"data", "inspect", "configs/quad.yaml", "--format", "jsonl"}), 2,
                   {"no file of format jsonl"});
    expect_failure(moesaic({"data", "inspect", scratch / "a.jsonl", "--set", "task.data.seq_len=13"}), 2,
                   {"--set: ", "is no configuration (.yaml)"});
}

}  // namespace
}  // namespace moesaic::e2e
