#include "runtime/data/jsonl.h"

#include <fmt/ranges.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/types.h"

namespace moesaic {

namespace {

constexpr std::size_t kLongestLine = std::size_t{256} << 20;
constexpr std::size_t kKeysShown = 8;

/// Keeps the string under one key of the outermost object and builds nothing of the rest, so that neither
/// depth nor length of other members costs memory.
class TextMember final : public nlohmann::json_sax<nlohmann::json> {
  public:
    explicit TextMember(const std::string& key) : key_(key) {}

    bool null() override { return other("null"); }
    bool boolean(bool) override { return other("a truth value"); }
    bool number_integer(number_integer_t) override { return other("a number"); }
    bool number_unsigned(number_unsigned_t) override { return other("a number"); }
    bool number_float(number_float_t, const string_t&) override { return other("a number"); }
    bool binary(binary_t&) override { return other("binary"); }
    bool string(string_t& value) override {
        if (depth_ == 1 && here_) {
            found_ = true;
            text_ = std::move(value);
            wrong_.clear();
        }
        return depth_ > 0 || other("");
    }
    bool key(string_t& name) override {
        if (depth_ != 1) return true;
        here_ = name == key_;
        if (keys_.size() <= kKeysShown) keys_.push_back(name.substr(0, 40));
        return true;
    }
    bool start_object(std::size_t) override { return deeper("an object"); }
    bool start_array(std::size_t) override { return depth_ > 0 ? deeper("a list") : other("a list"); }
    bool end_object() override { return shallower(); }
    bool end_array() override { return shallower(); }
    bool parse_error(std::size_t position, const std::string&,
                     const nlohmann::json::exception& error) override {
        const std::string what =
            error.what();  // "[json...] parse error at line 1, column 3: syntax error..."
        const std::size_t colon = what.find(": ");
        error_ = fmt::format("byte {}: is not JSON: {}", position,
                             what.substr(colon == std::string::npos ? 0 : colon + 2, 160));
        return false;
    }

    /// Empty, or why the line has no text.
    [[nodiscard]] std::string mistake() const {
        if (!error_.empty()) return error_ + "; write one JSON object a line, in UTF-8";
        if (!is_object_) return "is no JSON object; write lines like {\"" + key_ + "\": \"...\"}";
        if (!wrong_.empty())
            return fmt::format(
                "member '{}' is {}, not a string; set task.data.text_key to the one with the text", key_,
                wrong_);
        if (found_) return "";
        std::vector<std::string> shown(
            keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(std::min(keys_.size(), kKeysShown)));
        return fmt::format(
            "has no member '{}' (it has: {}{}); set task.data.text_key to the one with the text", key_,
            fmt::join(shown, ", "), keys_.size() > kKeysShown ? ", ..." : "");
    }
    [[nodiscard]] const std::string& text() const { return text_; }

  private:
    bool other(const char* what) {
        if (depth_ == 1 && here_) wrong_ = what;
        return depth_ > 0;  // a line that is no object is not read on
    }
    bool deeper(const char* what) {
        if (depth_ == 1 && here_) wrong_ = what;
        if (depth_ == 0) is_object_ = true;
        ++depth_;
        return true;
    }
    bool shallower() {
        --depth_;
        return true;
    }

    const std::string& key_;
    std::string text_, wrong_, error_;
    std::vector<std::string> keys_;
    std::size_t depth_ = 0;
    bool here_ = false, found_ = false, is_object_ = false;
};

bool is_blank(std::string_view line) {
    return line.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

}  // namespace

void read_jsonl(const MappedFile& file, const std::string& key,
                const std::function<void(const std::string& text)>& document) {
    const std::string_view all(reinterpret_cast<const char*>(file.data()), file.size());
    i64 number = 0;
    for (std::size_t at = 0; at < all.size();) {
        ++number;
        const void* const end = std::memchr(all.data() + at, '\n', all.size() - at);
        const std::size_t length =
            end ? static_cast<std::size_t>(static_cast<const char*>(end) - all.data()) - at : all.size() - at;
        const std::string_view line = all.substr(at, length);
        at += length + 1;
        if (line.size() > kLongestLine)
            throw UserError(
                fmt::format("{}:{}: a line of {} bytes, where {} are allowed; write one document "
                            "a line",
                            file.path(), number, line.size(), kLongestLine));
        if (is_blank(line)) continue;
        TextMember member(key);
        nlohmann::json::sax_parse(line.begin(), line.end(), &member);
        const std::string mistake = member.mistake();
        if (!mistake.empty()) throw UserError(fmt::format("{}:{}: {}", file.path(), number, mistake));
        document(member.text());
    }
}

}  // namespace moesaic
