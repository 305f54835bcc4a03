// moesaic data inspect: what data files hold, and what is odd about them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>

#include "launch/commands/commands.h"
#include "launch/commands/data_reading.h"
#include "launch/ranks.h"
#include "launch/run_setup.h"
#include "runtime/base/error.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

constexpr i64 kBlock = 1 << 16;             // tokens read at a time
constexpr i64 kLargestCountedId = 1 << 26;  // use of larger ids is not counted one by one
constexpr i64 kTokensShown = 48;

/// What one pass over a file, or over all files, found.
struct Contents {
    std::string name, format, layout, documents_by;
    i64 tokens = 0, documents = 0, shortest = 0, longest = 0;
    i64 largest_id = -1, zeros = 0, odd_zeros = 0;
    i64 training_windows = 0, validation_windows = 0;
    std::vector<bool> used;  // by id
    std::vector<i32> first;
    std::vector<std::string> oddities;

    [[nodiscard]] i64 distinct() const { return std::count(used.begin(), used.end(), true); }
    [[nodiscard]] double mean() const {
        return documents > 0 ? static_cast<double>(tokens) / static_cast<double>(documents) : 0;
    }
    void see(i64 at, i32 id) {
        largest_id = std::max<i64>(largest_id, id);
        if (id == 0) {
            ++zeros;
            odd_zeros += at % 2;
        }
        if (id >= kLargestCountedId) return;
        if (id >= std::ssize(used)) used.resize(static_cast<std::size_t>(id) + 1);
        used[static_cast<std::size_t>(id)] = true;
    }
    void see_document(i64 length) {
        shortest = documents == 0 ? length : std::min(shortest, length);
        longest = std::max(longest, length);
        ++documents;
    }
    void add(const Contents& other) {
        shortest = documents == 0         ? other.shortest
                   : other.documents == 0 ? shortest
                                          : std::min(shortest, other.shortest);
        longest = std::max(longest, other.longest);
        tokens += other.tokens;
        documents += other.documents;
        largest_id = std::max(largest_id, other.largest_id);
        training_windows += other.training_windows;
        validation_windows += other.validation_windows;
        used.resize(std::max(used.size(), other.used.size()));
        for (std::size_t id = 0; id < other.used.size(); ++id)
            if (other.used[id]) used[id] = true;
    }
};

struct Question {
    i64 seq_len = 256;
    double validation = 0.1;
    i64 vocabulary = 0;  ///< 0: unknown
};

void count_windows(Contents& found, const Question& question) {
    const i64 held_out =
        static_cast<i64>(std::floor(static_cast<double>(found.tokens) * question.validation));
    const auto windows = [&](i64 tokens) { return std::max<i64>(0, tokens - 1) / question.seq_len; };
    found.training_windows = windows(found.tokens - held_out);
    found.validation_windows = windows(held_out);
}

void judge(Contents& found, const DataFile& file, const Question& question, bool bytewise) {
    const auto odd = [&](std::string text) { found.oddities.push_back(found.name + ": " + std::move(text)); };
    if (found.tokens == 0) return odd("has no tokens");
    if (question.vocabulary > 0 && found.largest_id >= question.vocabulary)
        odd(
            fmt::format("id {} is outside of the vocabulary of {}: made with another tokenizer, or ids of "
                        "another type",
                        found.largest_id, question.vocabulary));
    if (found.training_windows == 0)
        odd(fmt::format("gives no training window of {} tokens", question.seq_len + 1));
    const bool every_second =
        found.odd_zeros * 10 > found.tokens * 4 && found.odd_zeros * 10 > found.zeros * 9;
    if (file.format == DataFormat::bin && every_second)
        odd("nearly every second id is 0: probably ids of 4 bytes; set token_type: uint32");
    if (file.format == DataFormat::text) {
        if (file.path.ends_with(".json")) odd("is read as text; for JSON Lines set format: jsonl");
        if (!found.first.empty() && found.first[0] == '{' && !file.path.ends_with(".json"))
            odd("begins like JSON and is read as text; for JSON Lines set format: jsonl");
        if (bytewise && found.zeros > 0) odd(fmt::format("has {} bytes of 0: is this text?", found.zeros));
    }
}

Contents inspect_file(const DataFile& file, TokenFileOptions options, const Question& question) {
    const bool ids = file.format != DataFormat::text && file.format != DataFormat::jsonl;
    if (ids) options.vocabulary = std::numeric_limits<i32>::max();  // what the file holds is the question
    const std::unique_ptr<TokenFile> opened = open_token_file(file, options);
    Contents found;
    found.name = file.name;
    found.format = name_of(file.format);
    found.layout = opened->layout();
    found.documents_by = opened->documents_by();
    found.tokens = opened->tokens();
    std::vector<i32> block(static_cast<std::size_t>(std::min(kBlock, found.tokens)));
    std::vector<i64> starts;
    i64 begun = 0;
    for (i64 at = 0; at < found.tokens; at += kBlock) {
        const i64 count = std::min(kBlock, found.tokens - at);
        opened->read(at, count, block.data());
        if (at == 0) found.first.assign(block.begin(), block.begin() + std::min(count, kTokensShown));
        for (i64 i = 0; i < count; ++i) found.see(at + i, block[static_cast<std::size_t>(i)]);
        starts.clear();
        opened->document_starts(at, count, starts);
        for (const i64 start : starts) {
            if (start > 0) found.see_document(start - std::exchange(begun, start));
        }
    }
    if (found.tokens > 0) found.see_document(found.tokens - begun);
    count_windows(found, question);
    judge(found, file, question, options.tokenizer->is_bytewise());
    return found;
}

std::string shown_text(const Contents& found, const Tokenizer& tokenizer) {
    std::string text;
    if (tokenizer.vocabulary_size() > found.largest_id) {
        append_json(text, tokenizer.decode(found.first));
    } else {
        for (const i32 id : found.first) text += fmt::format("{}{}", text.empty() ? "" : " ", id);
    }
    return text;
}

std::string vocabulary_text(const Contents& found, i64 vocabulary) {
    std::string text =
        fmt::format("largest id {}, {} different", found.largest_id, grouped(found.distinct()));
    if (vocabulary > 0 && found.largest_id < vocabulary)
        text += fmt::format(
            " of {} ({:.1f} % unused)", grouped(vocabulary),
            100.0 * (1 - static_cast<double>(found.distinct()) / static_cast<double>(vocabulary)));
    return text;
}

void print_findings(const Contents& found, const Question& question) {
    std::printf("  tokens     %s; %s\n", grouped(found.tokens).c_str(),
                vocabulary_text(found, question.vocabulary).c_str());
    std::printf("  documents  %s; shortest %s, mean %.1f, longest %s tokens\n",
                grouped(found.documents).c_str(), grouped(found.shortest).c_str(), found.mean(),
                grouped(found.longest).c_str());
    std::printf("  windows    %s training and %s held-out of %s tokens\n",
                grouped(found.training_windows).c_str(), grouped(found.validation_windows).c_str(),
                grouped(question.seq_len).c_str());
}

std::string json_of(const Contents& found, const Question& question) {
    JsonLine line;
    if (!found.name.empty())
        line.field("name", found.name).field("format", found.format).field("layout", found.layout);
    line.field("tokens", found.tokens).field("documents", found.documents);
    line.field("shortest_document", found.shortest).field("mean_document", found.mean());
    line.field("longest_document", found.longest);
    line.field("largest_id", found.largest_id).field("distinct_ids", found.distinct());
    std::optional<double> unused;
    if (question.vocabulary > 0)
        unused = 1 - static_cast<double>(found.distinct()) / static_cast<double>(question.vocabulary);
    line.field("unused_ids", unused);
    line.field("training_windows", found.training_windows)
        .field("validation_windows", found.validation_windows);
    return line.text();
}

void print_report(const std::vector<Contents>& files, const Contents& all, const Question& question,
                  const Tokenizer& tokenizer) {
    for (const Contents& found : files) {
        std::printf("%s: %s; %s\n", found.name.c_str(), found.layout.c_str(), found.documents_by.c_str());
        print_findings(found, question);
        std::printf("  begins     %s\n", shown_text(found, tokenizer).c_str());
    }
    if (files.size() > 1) {
        std::printf("all %zu files\n", files.size());
        print_findings(all, question);
    }
    for (const Contents& found : files)
        for (const std::string& oddity : found.oddities) std::printf("odd: %s\n", oddity.c_str());
}

void print_json(const std::vector<Contents>& files, const Contents& all, const Question& question) {
    std::string entries;
    std::vector<std::string> oddities;
    for (const Contents& found : files) {
        entries += (entries.empty() ? "" : ",") + json_of(found, question);
        oddities.insert(oddities.end(), found.oddities.begin(), found.oddities.end());
    }
    std::string odd;
    append_json(odd, oddities);
    std::printf("{\"files\":[%s],\"total\":%s,\"oddities\":%s}\n", entries.c_str(),
                json_of(all, question).c_str(), odd.c_str());
}

bool is_configuration(const std::string& path) {
    return path.ends_with(".yaml") || path.ends_with(".yml");
}

/// What to read: the sources of a configuration, or a path with the words of the command line.
struct Request {
    std::vector<SourceOptions> sources;
    DataReadOptions read;
    Question question;
};

Request request_of(const DataInspectOptions& options) {
    Request request{{}, options.read, {options.seq_len, options.validation, 0}};
    if (!is_configuration(options.path)) {
        if (!options.overrides.empty())
            throw UserError(
                fmt::format("--set: {} is no configuration (.yaml) whose keys it could change; leave it "
                            "out, or give --seq-len, --tokenizer, --format and the like",
                            options.path));
        SourceOptions source;
        source.path = options.path;
        source.format = options.read.format;
        source.text_key = options.read.text_key;
        source.token_type = options.read.token_type;
        source.end_of_document = options.read.end_of_document;
        request.sources.push_back(source);
        return request;
    }
    std::vector<std::string> overrides = options.overrides;
    overrides.insert(overrides.end(), options.given.begin(), options.given.end());
    LoadedConfig loaded = load_config(options.path, overrides);
    loaded.diagnostics.throw_if_any();
    if (loaded.config.task.kind != "lm")
        throw UserError(
            fmt::format("{}: task.kind is {}, and inspect looks at texts and token files; train "
                        "--check tells of tables",
                        options.path, loaded.config.task.kind));
    const DataConfig& data = loaded.config.task.data;
    request.sources = dataset_options(data, 0).sources;
    request.read.tokenizer = data.tokenizer;
    if (data.vocabulary) request.read.vocabulary = *data.vocabulary;
    request.question = {data.seq_len, data.validation, 0};
    return request;
}

int inspect(const DataInspectOptions& options) {
    Request request = request_of(options);
    std::vector<DataFile> files;
    std::vector<const SourceOptions*> source_of;
    for (const SourceOptions& source : request.sources) {
        for (DataFile& file : list_data_files(source.path, source.format)) {
            files.push_back(std::move(file));
            source_of.push_back(&source);
        }
    }
    const std::unique_ptr<Tokenizer> tokenizer = tokenizer_for(request.read, files);
    request.question.vocabulary = request.read.vocabulary.value_or(tokenizer->vocabulary_size());
    std::vector<Contents> found;
    Contents all;
    for (std::size_t i = 0; i < files.size(); ++i) {
        const SourceOptions& source = *source_of[i];
        const DataReadOptions read{request.read.tokenizer, request.read.vocabulary, source.format,
                                   source.text_key,        source.token_type,       source.end_of_document};
        found.push_back(inspect_file(files[i], file_options_for(read, *tokenizer), request.question));
        all.add(found.back());
    }
    options.json ? print_json(found, all, request.question)
                 : print_report(found, all, request.question, *tokenizer);
    return 0;
}

}  // namespace

int data_inspect_command(const DataInspectOptions& options) {
    return run_on_ranks(0, [&](Communicator& world) { return world.rank() == 0 ? inspect(options) : 0; });
}

}  // namespace moesaic
