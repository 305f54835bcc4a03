#include "runtime/data/tokenizers/merges_file.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "runtime/base/checksum.h"
#include "runtime/base/error.h"
#include "runtime/base/mapped_file.h"
#include "runtime/data/tokenizers/byte_symbols.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEndOfText = "<|endoftext|>";
constexpr std::string_view kHeader = "#version";
constexpr std::size_t kMostMerges = 16u << 20;

class MergesReader {
  public:
    MergesReader(std::string path, std::string_view text) : path_(std::move(path)), rest_(text) {
        for (const unsigned char byte : printable_first_bytes()) {
            parts_.byte_tokens[byte] = static_cast<i32>(parts_.tokens.size());
            add_token(std::string(1, static_cast<char>(byte)));
        }
    }

    BpeParts read() {
        if (!next_line().starts_with(kHeader)) {
            fail("the file does not begin as a list of merges does",
                 "line 1 is `#version: 0.2`, and a merge follows on each line");
        }
        while (!rest_.empty()) add_merge(next_line());
        if (parts_.merges.empty()) fail("no merge follows", "a pair of tokens on each line");
        parts_.end_of_text = static_cast<i32>(parts_.tokens.size());
        parts_.tokens.emplace_back(kEndOfText);
        return std::move(parts_);
    }

  private:
    [[noreturn]] void fail(const std::string& what, const std::string& remedy) const {
        throw UserError(fmt::format("{}:{}: {}; {}", path_, line_, what, remedy));
    }

    void add_token(std::string bytes) {
        const auto id = static_cast<i32>(parts_.tokens.size());
        const auto [known, added] = id_of_.emplace(bytes, id);
        if (!added) {
            const i32 first = known->second;
            fail(fmt::format("makes the token {} that {} already makes", symbols_of_bytes(bytes),
                             first < 256 ? "a byte" : fmt::format("line {}", first - 256 + 2)),
                 "every merge makes a token of its own");
        }
        parts_.words.push_back(id);
        parts_.tokens.push_back(std::move(bytes));
    }

    std::string_view next_line() {
        ++line_;
        const std::size_t end = rest_.find('\n');
        if (end == std::string_view::npos) {
            fail(rest_.empty() ? "the file is empty" : "the last line has no end: the file was cut off",
                 "a complete merges file, as GPT-2's merges.txt or vocab.bpe");
        }
        const std::string_view line = rest_.substr(0, end);
        rest_.remove_prefix(end + 1);
        return line;
    }

    i32 token_of(std::string_view symbols) const {
        const std::optional<std::string> bytes = bytes_of_symbols(symbols);
        if (!bytes) {
            fail(fmt::format("'{}' holds a character that stands for no byte", shown(symbols)),
                 "tokens are written with GPT-2's 256 byte symbols, and lines end in LF alone");
        }
        const auto known = id_of_.find(*bytes);
        if (known == id_of_.end()) {
            fail(fmt::format("'{}' is no token: neither a byte nor made by an earlier line", shown(symbols)),
                 "merges stand in the order in which they were found");
        }
        return known->second;
    }

    /// At most a line's worth, and nothing that would disturb a terminal.
    static std::string shown(std::string_view text) {
        std::string result;
        for (const char c : text.substr(0, 80)) {
            const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
            result += control ? fmt::format("\\x{:02x}", static_cast<unsigned>(c)) : std::string(1, c);
        }
        return result;
    }

    void add_merge(std::string_view line) {
        const std::size_t space = line.find(' ');
        if (space == std::string_view::npos || space == 0 || space + 1 == line.size() ||
            line.find(' ', space + 1) != std::string_view::npos) {
            fail(fmt::format("'{}' is no merge", shown(line)), "two tokens with one space between them");
        }
        if (parts_.merges.size() == kMostMerges) fail("more merges than ids", "at most 16 million merges");
        const i32 left = token_of(line.substr(0, space)), right = token_of(line.substr(space + 1));
        parts_.merges.push_back({left, right, static_cast<i32>(parts_.tokens.size())});
        add_token(parts_.tokens[static_cast<std::size_t>(left)] +
                  parts_.tokens[static_cast<std::size_t>(right)]);
    }

    std::string path_;
    std::string_view rest_;
    i64 line_ = 0;
    BpeParts parts_;
    std::unordered_map<std::string, i32> id_of_;
};

/// Other models of this family number the same merges differently (RoBERTa): their ids are in the JSON.
void check_against_vocabulary(const std::string& path, const BpeParts& parts) {
    const MappedFile file(path);
    const char* const begin = reinterpret_cast<const char*>(file.data());
    const auto refuse = [&](const std::string& what) {
        throw UserError(fmt::format(
            "{}: {}; a merges file alone gives GPT-2's ids: for other ids give the model's tokenizer.json",
            path, what));
    };
    const auto only_two_levels = [](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
        return depth < 3;
    };
    const nlohmann::json ids = nlohmann::json::parse(begin, begin + file.size(), only_two_levels, false);
    if (!ids.is_object()) refuse("is not a JSON object of token and id");
    for (std::size_t id = 0; id < parts.tokens.size(); ++id) {
        const bool last = parts.end_of_text && id == static_cast<std::size_t>(*parts.end_of_text);
        const std::string name = last ? parts.tokens[id] : symbols_of_bytes(parts.tokens[id]);
        const auto known = ids.find(name);
        if (known == ids.end() || !known->is_number_unsigned() || known->get<u64>() != id) {
            refuse(fmt::format("'{}' {}, by the merges it has {}", name,
                               known == ids.end() ? "has no id" : "has another id", id));
        }
    }
    if (ids.size() != parts.tokens.size()) {
        refuse(fmt::format("holds {} tokens, the merges make {}", ids.size(), parts.tokens.size()));
    }
}

}  // namespace

BpeParts read_merges_file(const std::string& path) {
    const MappedFile file(path);
    BpeParts parts = MergesReader(path, {reinterpret_cast<const char*>(file.data()), file.size()}).read();
    std::error_code ignored;
    for (const char* name : {"vocab.json", "encoder.json"}) {
        const std::string beside = (fs::path(path).parent_path() / name).string();
        if (fs::exists(beside, ignored)) check_against_vocabulary(beside, parts);
    }
    parts.stages.push_back({false, TextPattern(kGpt2Pattern, path)});
    parts.fingerprint = fmt::format("xxh64:{:016x}", checksum_of(file.data(), file.size()));
    parts.description = fmt::format("GPT-2 byte-level BPE of {}", path);
    return parts;
}

}  // namespace moesaic
