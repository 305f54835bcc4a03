// moesaic data prepare: text or token files to token files, document by document.
#include <fmt/ranges.h>

#include <chrono>
#include <cstdio>
#include <filesystem>

#include "launch/commands/commands.h"
#include "launch/commands/data_reading.h"
#include "launch/ranks.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/data/token_writer.h"

namespace moesaic {

namespace {

using Clock = std::chrono::steady_clock;

/// Passes tokens on, and says now and then how many there were.
class Progress final : public DocumentSink {
  public:
    explicit Progress(TokenWriter& writer) : writer_(writer) {}
    void add(std::span<const i32> tokens) override {
        writer_.add(tokens);
        const auto now = Clock::now();
        if (now - said_ < std::chrono::seconds(2)) return;
        said_ = now;
        const double seconds = std::chrono::duration<double>(now - start_).count();
        log_info("{} tokens in {} documents so far, {:.1f} M tokens/s", grouped(writer_.tokens()),
                 grouped(writer_.documents()), static_cast<double>(writer_.tokens()) / seconds / 1e6);
    }
    void end_document() override { writer_.end_document(); }

  private:
    TokenWriter& writer_;
    Clock::time_point start_ = Clock::now(), said_ = start_;
};

void make_folder_of(const std::string& prefix) {
    const std::filesystem::path folder = std::filesystem::path(prefix).parent_path();
    std::error_code error;
    if (!folder.empty()) std::filesystem::create_directories(folder, error);
    if (error)
        throw UserError(fmt::format("{}: cannot be created: {}; choose another --output", folder.string(),
                                    error.message()));
}

/// The line of YAML that trains on what was written.
std::string yaml_for(const DataPrepareOptions& options, const std::string& tokenizer, i64 vocabulary,
                     const TokenWriter::Written& written) {
    std::string keys;
    for (const auto& [key, value] : written.keys) keys += fmt::format("{}: \"{}\", ", key, value);
    const bool by_magic = options.to == "llmc" || options.to == "nanogpt";
    keys += fmt::format("format: {}, tokenizer: {}", by_magic ? "bin" : options.to, tokenizer);
    if (options.read.vocabulary || tokenizer == "none") keys += fmt::format(", vocabulary: {}", vocabulary);
    if (options.read.end_of_document != "auto")
        keys += fmt::format(", end_of_document: {}", options.read.end_of_document);
    return "task: {data: {" + keys + "}}";
}

int prepare(const DataPrepareOptions& options) {
    std::vector<DataFile> files;
    for (const std::string& input : options.inputs) {
        for (DataFile& file : list_data_files(input, options.read.format)) files.push_back(std::move(file));
    }
    const std::unique_ptr<Tokenizer> tokenizer = tokenizer_for(options.read, files);
    const TokenFileOptions reading = file_options_for(options.read, *tokenizer);
    if (reading.vocabulary == 0)
        throw UserError(
            "--vocabulary: without a tokenizer nothing says how many ids there are; give their number, or "
            "--tokenizer");
    TokenWriterOptions writing;
    writing.prefix = options.prefix;
    writing.vocabulary = reading.vocabulary;
    writing.shard_tokens = options.shard_tokens;
    if (options.append_end_of_document) writing.end_of_document = reading.end_of_document;
    if (options.append_end_of_document && !reading.end_of_document)
        throw UserError("--append-eod: no end-of-document id is known; give --end-of-document ID");
    if (reading.end_of_document && *reading.end_of_document >= reading.vocabulary)
        throw UserError(
            fmt::format("--end-of-document: {} is outside of the vocabulary of {}; an id below that",
                        *reading.end_of_document, reading.vocabulary));
    make_folder_of(options.prefix);
    const std::unique_ptr<TokenWriter> writer = make_token_writer(options.to, writing);
    Progress progress(*writer);
    for (const DataFile& file : files) stream_documents(file, reading, progress);
    const TokenWriter::Written written = writer->finish();
    std::printf("wrote %s: %s tokens in %s documents, %s bytes\n",
                fmt::format("{}", fmt::join(written.files, ", ")).c_str(), grouped(written.tokens).c_str(),
                grouped(written.documents).c_str(), grouped(written.bytes).c_str());
    if (options.to != "megatron" && !options.append_end_of_document && written.documents > 1)
        std::printf(
            "documents are told apart by the ids they end with themselves; --append-eod makes sure of one\n");
    const std::string tokenizer_name = options.read.tokenizer != "auto"
                                           ? options.read.tokenizer
                                           : (tokenizer->is_bytewise() ? "bytes" : "none");
    std::printf("%s\n", yaml_for(options, tokenizer_name, reading.vocabulary, written).c_str());
    return 0;
}

}  // namespace

int data_prepare_command(const DataPrepareOptions& options) {
    return run_on_ranks(0, [&](Communicator& world) { return world.rank() == 0 ? prepare(options) : 0; });
}

}  // namespace moesaic
