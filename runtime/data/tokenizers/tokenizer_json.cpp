#include "runtime/data/tokenizers/tokenizer_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "runtime/base/checksum.h"
#include "runtime/base/error.h"
#include "runtime/base/mapped_file.h"
#include "runtime/data/tokenizers/byte_symbols.h"
#include "runtime/data/tokenizers/nfc.h"

namespace moesaic {
namespace {

using Json = nlohmann::json;

constexpr const char* kReads =
    "this version reads byte-level BPE, as GPT-2, Llama 3, Qwen and OLMoE have it; convert the text with the "
    "model's own tokenizer instead";
constexpr int kDeepest = 16;
constexpr std::size_t kMostTokens = 16u << 20;

std::string shortened(std::string_view text) {
    return text.size() <= 120 ? std::string(text) : fmt::format("{}...", text.substr(0, 120));
}

/// A value and how the file leads to it.
class Place {
  public:
    Place(const std::string& file, std::string path, const Json& value)
        : file_(file), path_(std::move(path)), value_(value) {}

    [[noreturn]] void fail(const std::string& what, const std::string& remedy) const {
        throw UserError(fmt::format("{}: {}: {}; {}", file_, shortened(path_), what, remedy));
    }
    [[nodiscard]] const Json& value() const { return value_; }
    [[nodiscard]] std::string name() const { return fmt::format("{}: {}", file_, path_); }

    /// An object with these fields, and no other than these.
    void expect_fields(const std::vector<const char*>& required,
                       const std::vector<const char*>& optional) const {
        if (!value_.is_object()) wrong_type("an object");
        for (const char* key : required) {
            if (!value_.contains(key)) fail(fmt::format("has no field '{}'", key), kReads);
        }
        const auto in = [](const std::vector<const char*>& names, const std::string& key) {
            return std::any_of(names.begin(), names.end(), [&](const char* name) { return key == name; });
        };
        for (const auto& [key, unused] : value_.items()) {
            if (!in(required, key) && !in(optional, key)) {
                fail(fmt::format("has an unknown field '{}'", shortened(key)), kReads);
            }
        }
    }
    [[nodiscard]] bool has(const char* key) const {
        return value_.is_object() && value_.contains(key) && !value_.at(key).is_null();
    }
    [[nodiscard]] Place operator[](const char* key) const {
        if (!value_.is_object()) wrong_type("an object");
        if (!value_.contains(key)) fail(fmt::format("has no field '{}'", key), kReads);
        return {file_, path_.empty() ? key : fmt::format("{}.{}", path_, key), value_.at(key)};
    }
    [[nodiscard]] Place element(std::size_t i) const {
        return {file_, fmt::format("{}[{}]", path_, i), value_[i]};
    }
    [[nodiscard]] Place entry(const std::string& key, const Json& value) const {
        return {file_, fmt::format("{}[\"{}\"]", path_, key), value};
    }
    [[nodiscard]] std::size_t elements() const {
        if (!value_.is_array()) wrong_type("an array");
        return value_.size();
    }
    [[nodiscard]] const std::string& text() const {
        if (!value_.is_string()) wrong_type("a string");
        return value_.get_ref<const std::string&>();
    }
    [[nodiscard]] bool flag(const char* key, bool otherwise) const {
        if (!has(key)) return otherwise;
        const Place place = (*this)[key];
        if (!place.value_.is_boolean()) place.wrong_type("true or false");
        return place.value_.get<bool>();
    }
    /// An id below `end`.
    [[nodiscard]] i32 id(std::size_t end) const {
        if (!value_.is_number_unsigned() || value_.get<u64>() >= end) {
            fail(fmt::format("{} is no id of this vocabulary", shortened(value_.dump())),
                 fmt::format("the {} tokens have the ids 0 to {}, each once", end, end == 0 ? 0 : end - 1));
        }
        return static_cast<i32>(value_.get<u64>());
    }
    [[noreturn]] void wrong_type(const char* right) const {
        fail(fmt::format("is {}", shortened(value_.dump())), fmt::format("it should be {}", right));
    }

  private:
    const std::string& file_;
    std::string path_;
    const Json& value_;
};

/// Refuses what would cost more than its size or be read in one of several ways.
Json parse(const std::string& path, std::string_view text) {
    std::vector<std::unordered_set<std::string>> keys;
    const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
        if (depth > kDeepest) throw UserError(fmt::format("{}: is nested too deep; {}", path, kReads));
        if (event == Json::parse_event_t::object_start) keys.emplace_back();
        if (event == Json::parse_event_t::object_end) keys.pop_back();
        if (event == Json::parse_event_t::key &&
            !keys.back().insert(value.get_ref<const std::string&>()).second) {
            throw UserError(fmt::format("{}: the key '{}' occurs twice in one object; keep one of the two",
                                        path, shortened(value.get_ref<const std::string&>())));
        }
        return true;
    };
    try {
        return Json::parse(text.begin(), text.end(), watch);
    } catch (const Json::exception& error) {
        throw UserError(fmt::format("{}: not valid JSON, or cut off: {}; give a complete tokenizer.json",
                                    path, shortened(error.what())));
    }
}

class Reader {
  public:
    Reader(const std::string& path, const Json& document) : root_(path, "", document) {}

    BpeParts read() {
        if (!root_.value().is_object()) root_.wrong_type("the object of a tokenizer.json");
        const std::vector<const char*> optional{"version",    "truncation",    "padding", "added_tokens",
                                                "normalizer", "pre_tokenizer", "decoder", "post_processor"};
        root_.expect_fields({"model"}, optional);
        read_model(root_["model"]);
        if (root_.has("normalizer")) read_normalizer(root_["normalizer"]);
        if (root_.has("added_tokens")) read_added_tokens(root_["added_tokens"]);
        for (std::size_t id = 0; id < parts_.tokens.size(); ++id) {
            if (!taken_[id]) {
                root_["model"]["vocab"].fail(
                    fmt::format("no token has the id {}", id),
                    fmt::format("the ids 0 to {}, each once", parts_.tokens.size() - 1));
            }
        }
        if (!root_.has("pre_tokenizer")) root_.fail("has no pre_tokenizer", kReads);
        read_pre_tokenizer(root_["pre_tokenizer"]);
        if (!byte_level_) root_["pre_tokenizer"].fail("has no ByteLevel step", kReads);
        if (root_.has("decoder")) read_decoder(root_["decoder"]);
        return std::move(parts_);
    }

  private:
    /// Refuses a field that would change the result, unless it has the value that does not.
    static void expect_absent(const Place& place, const char* key) {
        if (!place.has(key)) return;
        const Json& value = place[key].value();
        const bool neutral =
            value == Json("") || value == Json(false) || (value.is_number() && value == Json(0));
        if (!neutral) place[key].fail(fmt::format("is {}", shortened(value.dump())), kReads);
    }

    void read_model(const Place& model) {
        if (model.has("type") && model["type"].text() != "BPE") {
            model["type"].fail(fmt::format("is '{}'", shortened(model["type"].text())), kReads);
        }
        model.expect_fields({"vocab", "merges"},
                            {"type", "dropout", "unk_token", "continuing_subword_prefix",
                             "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges"});
        for (const char* key :
             {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
            expect_absent(model, key);
        }
        parts_.whole_words_first = model.flag("ignore_merges", false);
        read_vocabulary(model["vocab"]);
        read_merges(model["merges"]);
    }

    void read_vocabulary(const Place& vocab) {
        if (!vocab.value().is_object()) vocab.wrong_type("an object of tokens and ids");
        const std::size_t added = root_.has("added_tokens") ? root_["added_tokens"].elements() : 0;
        const std::size_t most = vocab.value().size() + added;
        if (most > kMostTokens) vocab.fail("has too many tokens", "at most 16 million");
        for (const auto& [symbols, value] : vocab.value().items()) {
            const i32 id = vocab.entry(symbols, value).id(most);
            const std::optional<std::string> bytes = bytes_of_symbols(symbols);
            set_token(vocab.entry(symbols, value), id, bytes.value_or(symbols));
            ids_.emplace(symbols, id);
            if (bytes && !bytes->empty()) parts_.words.push_back(id);
        }
        for (int byte = 0; byte < 256; ++byte) {
            const std::string symbol = symbols_of_bytes(std::string(1, static_cast<char>(byte)));
            const auto known = ids_.find(symbol);
            if (known == ids_.end()) {
                vocab.fail(fmt::format("has no token '{}' for the byte {:#04x}", symbol, byte),
                           "a byte-level vocabulary has a token for each of the 256 bytes");
            }
            parts_.byte_tokens[static_cast<std::size_t>(byte)] = known->second;
        }
    }

    void set_token(const Place& place, i32 id, std::string bytes) {
        const auto index = static_cast<std::size_t>(id);
        if (index >= taken_.size()) {
            taken_.resize(index + 1);
            parts_.tokens.resize(index + 1);
        }
        if (taken_[index]) {
            place.fail(
                fmt::format("has the id {}, which '{}' has as well", id, shortened(parts_.tokens[index])),
                "an id belongs to one token");
        }
        taken_[index] = true;
        parts_.tokens[index] = std::move(bytes);
    }

    [[nodiscard]] i32 token_of(const Place& place, const std::string& symbols) const {
        const auto known = ids_.find(symbols);
        if (known == ids_.end()) {
            place.fail(fmt::format("'{}' is not in model.vocab", shortened(symbols)),
                       "the two parts of a merge and what it makes are tokens");
        }
        return known->second;
    }

    void read_merges(const Place& merges) {
        std::set<std::pair<i32, i32>> seen;
        for (std::size_t i = 0; i < merges.elements(); ++i) {
            const Place place = merges.element(i);
            std::string left, right;
            if (place.value().is_array()) {
                if (place.elements() != 2) place.wrong_type("a pair of tokens");
                left = place.element(0).text();
                right = place.element(1).text();
            } else {
                const std::string& pair = place.text();
                const std::size_t space = pair.find(' ');
                if (space == std::string::npos || pair.find(' ', space + 1) != std::string::npos) {
                    place.wrong_type("two tokens with one space between them");
                }
                left = pair.substr(0, space);
                right = pair.substr(space + 1);
            }
            if (left.empty() || right.empty() || !bytes_of_symbols(left + right)) {
                place.fail(fmt::format("'{}' and '{}' are not both bytes in symbols", shortened(left),
                                       shortened(right)),
                           kReads);
            }
            const BpeMerge merge{token_of(place, left), token_of(place, right),
                                 token_of(place, left + right)};
            if (!seen.emplace(merge.left, merge.right).second) {
                place.fail(fmt::format("'{} {}' is there twice", left, right), "every pair has one rank");
            }
            parts_.merges.push_back(merge);
        }
    }

    void read_normalizer(const Place& normalizer) {
        const std::string& type = normalizer["type"].text();
        if (type == "Sequence") {
            const Place steps = normalizer["normalizers"];
            for (std::size_t i = 0; i < steps.elements(); ++i) read_normalizer(steps.element(i));
        } else if (type == "NFC") {
            normalizer.expect_fields({"type"}, {});
            parts_.nfc = true;
        } else {
            normalizer["type"].fail(
                fmt::format("is '{}'", shortened(type)),
                "this version has NFC or none; convert the text with the model's own tokenizer");
        }
    }

    void read_added_tokens(const Place& list) {
        std::set<std::string> contents;
        const std::size_t most = ids_.size() + list.elements();
        i32 best = 0;
        for (std::size_t i = 0; i < list.elements(); ++i) {
            const Place place = list.element(i);
            place.expect_fields({"id", "content"},
                                {"single_word", "lstrip", "rstrip", "normalized", "special"});
            AddedToken token{place["content"].text(), place["id"].id(most), place.flag("lstrip", false),
                             place.flag("rstrip", false)};
            if (token.content.empty()) place["content"].fail("is empty", "the text of the token");
            if (!contents.insert(token.content).second) {
                place["content"].fail(fmt::format("'{}' is added twice", shortened(token.content)),
                                      "each once");
            }
            if (place.flag("single_word", false)) {
                place["single_word"].fail("is true",
                                          "this version has added tokens anywhere in the text only");
            }
            const bool special = place.flag("special", false);
            if (const auto known = ids_.find(token.content); known == ids_.end()) {
                set_token(place, token.id, token.content);
            } else if (known->second != token.id) {
                place["id"].fail(fmt::format("is {}, in model.vocab it is {}", token.id, known->second),
                                 "the same token has the same id");
            }
            parts_.tokens[static_cast<std::size_t>(token.id)] = token.content;
            if (special) best = prefer_end_of_text(token, best);
            const bool normalized = place.flag("normalized", !special);
            if (normalized && parts_.nfc) token.content = normalize_nfc(token.content);
            (normalized ? parts_.normalized_added : parts_.raw_added).push_back(std::move(token));
        }
    }

    /// `best`: 0, or how good the name of the end of text found so far is.
    i32 prefer_end_of_text(const AddedToken& token, i32 best) {
        const std::vector<std::string_view> names{"<|endoftext|>", "<|end_of_text|>",      "</s>", "<eos>",
                                                  "<|eos|>",       "<｜end▁of▁sentence｜>"};
        const auto name = std::find(names.begin(), names.end(), token.content);
        const auto worth = static_cast<i32>(names.end() - name);
        if (worth <= best) return best;
        parts_.end_of_text = token.id;
        return worth;
    }

    void read_pre_tokenizer(const Place& step) {
        const std::string& type = step["type"].text();
        if (byte_level_) step.fail("follows the ByteLevel step", "ByteLevel is the last step");
        if (type == "Sequence") {
            const Place steps = step["pretokenizers"];
            for (std::size_t i = 0; i < steps.elements(); ++i) read_pre_tokenizer(steps.element(i));
        } else if (type == "ByteLevel") {
            step.expect_fields({"type", "add_prefix_space"}, {"trim_offsets", "use_regex"});
            byte_level_ = true;
            SplitStage stage{step.flag("add_prefix_space", true), std::nullopt};
            if (step.flag("use_regex", true)) stage.pattern.emplace(kGpt2Pattern, step.name());
            if (stage.adds_space || stage.pattern) parts_.stages.push_back(std::move(stage));
        } else if (type == "Digits") {
            step.expect_fields({"type", "individual_digits"}, {});
            const bool each = step.flag("individual_digits", false);
            parts_.stages.push_back({false, TextPattern(each ? R"(\p{N})" : R"(\p{N}+)", step.name())});
        } else if (type == "Split") {
            read_split(step);
        } else {
            step["type"].fail(fmt::format("is '{}'", shortened(type)),
                              "this version has ByteLevel, Split, Digits and Sequences of them");
        }
    }

    void read_split(const Place& step) {
        step.expect_fields({"type", "pattern", "behavior"}, {"invert"});
        const Place behavior = step["behavior"], pattern = step["pattern"];
        if (behavior.text() != "Isolated") {
            behavior.fail(fmt::format("is '{}'", shortened(behavior.text())), "this version has Isolated");
        }
        (void)step.flag("invert", false);  // isolated pieces are the same either way
        pattern.expect_fields({}, {"Regex", "String"});
        if (pattern.value().size() != 1) pattern.wrong_type("an object with Regex or String");
        const bool regex = pattern.has("Regex");
        const Place text = pattern[regex ? "Regex" : "String"];
        parts_.stages.push_back(
            {false, TextPattern(regex ? text.text() : pattern_of_text(text.text()), text.name())});
    }

    static void read_decoder(const Place& decoder) {
        if (decoder["type"].text() != "ByteLevel") {
            decoder["type"].fail(fmt::format("is '{}'", shortened(decoder["type"].text())), kReads);
        }
    }

    Place root_;
    BpeParts parts_;
    std::vector<bool> taken_;                   // by id
    std::unordered_map<std::string, i32> ids_;  // of the tokens in model.vocab, as they are written there
    bool byte_level_ = false;
};

}  // namespace

BpeParts read_tokenizer_json(const std::string& path) {
    const MappedFile file(path);
    const Json document = parse(path, {reinterpret_cast<const char*>(file.data()), file.size()});
    BpeParts parts = Reader(path, document).read();
    parts.fingerprint = fmt::format("xxh64:{:016x}", checksum_of(file.data(), file.size()));
    parts.description = fmt::format("byte-level BPE of {}", path);
    return parts;
}

}  // namespace moesaic
