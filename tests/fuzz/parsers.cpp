#include "tests/fuzz/parsers.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "comm/traffic/traffic.h"
#include "launch/commands/run_bounds.h"
#include "launch/convert/config_reader.h"
#include "launch/convert/huggingface_folder.h"
#include "launch/report/run_figures.h"
#include "launch/study/study_table.h"
#include "runtime/base/error.h"
#include "runtime/base/json_depth.h"
#include "runtime/checkpoint/checkpoint_reader.h"
#include "runtime/checkpoint/tensor_files.h"
#include "runtime/config/cluster_config.h"
#include "runtime/config/load.h"
#include "runtime/config/study_config.h"
#include "runtime/data/npy.h"
#include "runtime/data/tables/table.h"
#include "runtime/data/token_file.h"
#include "runtime/data/tokenizer.h"
#include "runtime/data/tokenizers/byte_symbols.h"
#include "runtime/metrics/truncate.h"

namespace moesaic::fuzz {

Folder::Folder(const std::string& parser) {
    const std::filesystem::path memory = "/dev/shm";
    const auto base = exists(memory) ? memory : std::filesystem::temp_directory_path();
    path_ = (base / fmt::format("moesaic-fuzz-{}-{}", parser, getpid())).string();
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
}

Folder::~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

std::string Folder::write(const std::string& name, std::string_view contents) const {
    const std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::binary)
        .write(contents.data(), static_cast<std::streamsize>(contents.size()));
    return path;
}

namespace {

/// Two files in one input: the first one's length stands before it, in two bytes.
struct Pair {
    std::string_view first, second;
    explicit Pair(std::string_view input) {
        if (input.size() < 2) return;
        const auto byte = [&](std::size_t i) {
            return static_cast<std::size_t>(static_cast<unsigned char>(input[i]));
        };
        const std::size_t length = std::min(byte(0) + 256 * byte(1), input.size() - 2);
        first = input.substr(2, length);
        second = input.substr(2 + length);
    }
};

// ------------------------------------------------------------ configurations

void read_configuration(std::string_view input, const Folder&) {
    const LoadedConfig loaded = parse_config(input, "fuzz.yaml");
    if (!loaded.diagnostics.empty()) return;
    const LoadedConfig again = parse_config(to_yaml(loaded.config), "again.yaml");
    MOESAIC_ASSERT(again.diagnostics.empty(), "{}", again.diagnostics.text());
}

void read_study(std::string_view input, const Folder& folder) {
    const std::string path = folder.write("study.yaml", input);
    for (const bool smoke : {false, true}) {
        Diagnostics diagnostics;
        const StudyConfig study = load_study(path, smoke, diagnostics);
        if (diagnostics.empty()) (void)points_of(study);
    }
}

void read_cluster(std::string_view input, const Folder& folder) {
    Diagnostics diagnostics;
    (void)load_cluster(folder.write("cluster.yaml", input), diagnostics);
}

// ------------------------------------------------------------ weights

void visit(const SafetensorsEntry& entry) {
    u64 sum = 0;
    for (i64 i = 0; i < entry.bytes; ++i) sum += static_cast<u64>(entry.data[i]);
    MOESAIC_ASSERT(sum <= 255 * static_cast<u64>(entry.bytes), "{}", sum);
    if (entry.dtype && entry.aligned() && entry.shape.size() <= 3) (void)entry.view();
    if (is_floating_dtype(entry.dtype_name)) for_each_piece(entry, [](i64, std::span<float>) {});
}

void read_safetensors(std::string_view input, const Folder& folder) {
    const SafetensorsFile file = SafetensorsFile::open(folder.write("model.safetensors", input));
    for (const SafetensorsEntry& entry : file.entries()) visit(entry);
}

/// An index and the one shard that there is.
void read_sharded_weights(std::string_view input, const Folder& folder) {
    const Pair files(input);
    (void)folder.write("model.safetensors.index.json", files.first);
    (void)folder.write("a.safetensors", files.second);
    const HuggingFaceFolder weights(folder.path());
    for (const std::string& name : weights.names()) visit(*weights.find(name));
}

void read_huggingface(std::string_view input, const Folder& folder) {
    (void)read_huggingface_config(folder.write("config.json", input));
}

/// Mutations break the checksum first of all, and what lies behind it would never be read.
std::string with_right_checksum(std::string_view manifest) {
    constexpr int kDeep = 100;  // writing takes stack for every level
    if (json_depth(manifest) > kDeep) return std::string(manifest);
    auto document = nlohmann::json::parse(manifest, nullptr, false);
    if (!document.is_object() || document.erase("checksum") == 0) return std::string(manifest);
    const std::string text = document.dump();
    document["checksum"] = fmt::format("xxh64:{:016x}", checksum_of(text.data(), text.size()));
    return document.dump();
}

void read_checkpoint(std::string_view input, const Folder& folder) {
    const Pair files(input);
    (void)folder.write(std::string(kManifestName), with_right_checksum(files.first));
    (void)folder.write(shard_file_name(0, 1), files.second);
    CheckpointReader reader(folder.path(), ShardCheck::sizes);
    for (const auto& [name, tensor] : reader.manifest().tensors) visit(reader.entry(name));
}

// ------------------------------------------------------------ tokens and text

const Tokenizer& byte_tokenizer() {
    static const std::unique_ptr<Tokenizer> kTokenizer = make_tokenizer("bytes");
    return *kTokenizer;
}

TokenFileOptions token_options(const char* type = "auto") {
    TokenFileOptions options;
    options.tokenizer = &byte_tokenizer();
    options.vocabulary = 50257;
    options.token_type = type;
    options.end_of_document = 0;
    return options;
}

void read_all(const TokenFile& file) {
    constexpr i64 kAtOnce = 1024;
    std::vector<i32> ids(kAtOnce);
    std::vector<i64> starts;
    for (i64 first = 0; first < file.tokens(); first += kAtOnce) {
        const i64 count = std::min(kAtOnce, file.tokens() - first);
        file.read(first, count, ids.data());
        file.document_starts(first, count, starts);
    }
    for (const i64 start : starts) MOESAIC_ASSERT(0 <= start && start < file.tokens(), "{}", start);
    if (file.tokens() > 0) (void)file.document_around(file.tokens() / 2);
}

void read_bin(std::string_view input, const Folder& folder) {
    const std::string path = folder.write("tokens.bin", input);
    read_all(*open_bin_file(path, token_options()));
    read_all(*open_bin_file(path, token_options("uint32")));
}

void read_megatron(std::string_view input, const Folder& folder) {
    const Pair files(input);
    const std::string index = folder.write("pair.idx", files.first);
    (void)folder.write("pair.bin", files.second);
    read_all(*open_megatron_pair(index.substr(0, index.size() - 4), token_options()));
}

void read_npy(std::string_view input, const Folder& folder) {
    read_all(*open_npy_file(folder.write("tokens.npy", input), token_options()));
}

/// A recorded trace of a router, 4 choices a token of 8 experts, and the same file as rows of tokens.
void read_trace(std::string_view input, const Folder& folder) {
    const std::string path = folder.write("trace.npy", input);
    const TokenRows rows = read_token_rows(path);
    MOESAIC_ASSERT(std::ssize(rows.ids) == rows.rows * rows.columns, "{} ids", rows.ids.size());
    const auto traffic = make_traffic("trace:" + path, {.experts = 8, .top_k = 2});
    std::vector<i32> choices(10);
    traffic->route(1, 0, 3, 5, choices);
}

void read_matrix(std::string_view input, const Folder& folder) {
    const RankMatrix matrix = read_rank_matrix(folder.write("matrix.txt", input));
    for (int rank = 0; rank < matrix.ranks; ++rank) (void)matrix.received_by(rank);
}

void read_jsonl_file(std::string_view input, const Folder& folder) {
    read_all(*open_jsonl_file(folder.write("texts.jsonl", input), token_options()));
}

void round_trip(const Tokenizer& tokenizer, std::string_view text) {
    const std::string back = tokenizer.decode(tokenizer.encode(text));
    MOESAIC_ASSERT(back == text, "{} bytes came back as {}", text.size(), back.size());
}

void read_text(std::string_view input, const Folder& folder) {
    static const std::unique_ptr<Tokenizer> kTokenizer =
        make_tokenizer(folder.write("vocab.bpe", "#version: 0.2\n\xc4\xa0 t\nh e\n\xc4\xa0t he\nin g\n"));
    round_trip(*kTokenizer, input);
}

void read_merges(std::string_view input, const Folder& folder) {
    round_trip(*make_tokenizer(folder.write("vocab.bpe", input)), "The quick brown fox, 1234 \xc3\xa9\xff  ");
}

/// The numbers beside a list of merges.
void read_vocabulary(std::string_view input, const Folder& folder) {
    (void)folder.write("vocab.json", input);
    (void)make_tokenizer(folder.write("vocab.bpe", "#version: 0.2\nt h\nth e\n"));
}

/// @ in the input stands for the 256 bytes and their ids, which mutations would not keep together.
void read_tokenizer(std::string_view input, const Folder& folder) {
    std::string bytes;
    for (int byte = 0; byte < 256; ++byte)
        bytes += fmt::format("{}{}:{}", byte ? "," : "",
                             nlohmann::json(symbols_of_bytes(std::string(1, static_cast<char>(byte)))).dump(),
                             byte);
    std::string text(input);
    if (const std::size_t at = text.find('@'); at != std::string::npos) text.replace(at, 1, bytes);
    const auto tokenizer = make_tokenizer(folder.write("tokenizer.json", text));
    (void)tokenizer->decode(tokenizer->encode("The quick brown fox, 1234 \xc3\xa9\xff  <|endoftext|>"));
}

// ------------------------------------------------------------ tables

void read_as(TableOptions options) {
    for (const bool classes : {true, false}) {
        options.classes = classes;
        try {
            const Table table = read_table(options);
            MOESAIC_ASSERT(std::ssize(table.features) == table.rows * table.columns, "{} features",
                           table.features.size());
        } catch (const UserError&) {
        }
    }
}

void read_csv(std::string_view input, const Folder& folder) {
    TableOptions options;
    options.path = folder.write("table.csv", input);
    read_as(options);
}

/// A file of features and one of labels, found by its name.
void read_pair(std::string_view input, const Folder& folder, const char* features, const char* labels) {
    const Pair files(input);
    TableOptions options;
    options.path = folder.write(features, files.first);
    (void)folder.write(labels, files.second);
    read_as(options);
}

void read_idx(std::string_view input, const Folder& folder) {
    read_pair(input, folder, "train-images-idx3-ubyte", "train-labels-idx1-ubyte");
}

void read_npy_pair(std::string_view input, const Folder& folder) {
    read_pair(input, folder, "X.npy", "y.npy");
}

// ------------------------------------------------------------ what runs and studies have left

void read_metrics(std::string_view input, const Folder& folder) {
    (void)folder.write("metrics.jsonl", input);
    const RunHistory history = read_run(folder.path());
    for (const RunFigure& figure : run_figures())
        if (is_drawable(figure, history)) (void)drawing_of(figure, history);
}

void read_bounds(std::string_view input, const Folder& folder) {
    (void)folder.write("metrics.jsonl", input);
    (void)read_run_bounds(folder.path());
}

/// What a resumed run cuts off of its own records.
void read_resumed(std::string_view input, const Folder& folder) {
    const Pair files(input);
    (void)folder.write("metrics.jsonl", files.first);
    (void)folder.write("metrics.csv", files.second);
    truncate_metrics_after(folder.path(), 3);
}

void read_results(std::string_view input, const Folder& folder) {
    const StudyTable table = read_study_table(folder.write("results.jsonl", input));
    (void)csv_text(cell_table(table, table.columns));
}

constexpr Parser kParsers[] = {
    {"configuration", read_configuration,
     "runtime/config/load.cpp runtime/config/validate runtime/config/print.cpp"},
    {"study", read_study, "runtime/config/load_study.cpp runtime/config/yaml_file.cpp"},
    {"cluster", read_cluster, "runtime/config/load_cluster.cpp runtime/config/yaml_file.cpp"},
    {"safetensors", read_safetensors, "checkpoint/safetensors.cpp checkpoint/safetensors_header.cpp"},
    {"sharded_weights", read_sharded_weights, "convert/huggingface_folder.cpp checkpoint/safetensors.cpp"},
    {"huggingface", read_huggingface, "convert/config_reader.cpp convert/json_document.cpp"},
    {"checkpoint", read_checkpoint, "checkpoint/manifest.cpp checkpoint/checkpoint_reader.cpp"},
    {"bin", read_bin, "data/bin_file.cpp data/id_array.cpp data/token_file.cpp"},
    {"megatron", read_megatron, "data/megatron_file.cpp data/id_array.cpp"},
    {"npy", read_npy, "data/npy_file.cpp data/id_array.cpp"},
    {"trace", read_trace, "data/npy_file.cpp traffic/table.cpp"},
    {"matrix", read_matrix, "traffic/parse.cpp"},
    {"jsonl", read_jsonl_file, "data/jsonl.cpp data/text_file.cpp"},
    {"text", read_text, "tokenizers/bpe_ tokenizers/utf8.cpp tokenizers/text_pattern.cpp"},
    {"merges", read_merges, "tokenizers/merges_file.cpp tokenizers/byte_symbols.cpp"},
    {"vocabulary", read_vocabulary, "tokenizers/merges_file.cpp"},
    {"tokenizer", read_tokenizer,
     "tokenizers/tokenizer_json.cpp tokenizers/text_pattern tokenizers/added_tokens.cpp"},
    {"csv", read_csv, "tables/csv_table.cpp tables/table.cpp"},
    {"idx", read_idx, "tables/idx_table.cpp tables/table.cpp"},
    {"npy_table", read_npy_pair, "tables/npy_table.cpp data/npy_file.cpp"},
    {"metrics", read_metrics,
     "report/run_history.cpp report/run_figures.cpp report/load_map.cpp report/domain_map.cpp"},
    {"bounds", read_bounds, "commands/run_bounds.cpp"},
    {"resumed", read_resumed, "metrics/truncate.cpp"},
    {"results", read_results, "study/study_table.cpp"},
};

}  // namespace

std::span<const Parser> parsers() {
    return kParsers;
}

const Parser* find_parser(std::string_view name) {
    const auto* const found = std::ranges::find(kParsers, name, &Parser::name);
    return found == std::end(kParsers) ? nullptr : found;
}

void feed(const Parser& parser, std::string_view input, const Folder& folder) {
    try {
        parser.read(input, folder);
    } catch (const UserError&) {
    } catch (const Error&) {
    }
}

}  // namespace moesaic::fuzz
