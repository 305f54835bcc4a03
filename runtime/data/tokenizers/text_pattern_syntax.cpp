// The part of regular-expression syntax that all engines read alike, in PCRE2's words.
#include <algorithm>
#include <array>
#include <cctype>

#include "runtime/base/error.h"
#include "runtime/data/tokenizers/text_pattern.h"

namespace moesaic {
namespace {

// PCRE2's own \s has U+180E beside Unicode's White_Space, and \p{White_Space} needs PCRE2 10.40.
constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNoWhiteSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

constexpr std::array<std::string_view, 37> kCategories{
    "C",  "Cc", "Cf", "Cn", "Co", "Cs", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",
    "Mc", "Me", "Mn", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi",
    "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"};

class Translator {
  public:
    Translator(std::string_view pattern, const std::string& where) : pattern_(pattern), where_(where) {}

    std::string translate() {
        while (at_ < pattern_.size()) {
            if (pattern_[at_] == '\\') {
                escape(false);
            } else if (pattern_[at_] == '[') {
                character_class();
            } else if (pattern_[at_] == '(') {
                group();
            } else if (pattern_[at_] == '{') {
                repetition();
            } else {
                copy(1);
            }
        }
        return result_;
    }

  private:
    void copy(std::size_t bytes) {
        result_ += pattern_.substr(at_, bytes);
        at_ += bytes;
    }
    [[nodiscard]] bool next_is(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }

    [[noreturn]] void refuse(const std::string& what) const {
        throw UserError(fmt::format(
            "{}: the regular expression has {} (at byte {}), which engines read in different ways; use "
            "\\s \\S \\d \\D \\r \\n \\t \\f, general categories such as \\p{{L}} and \\p{{Lu}}, plain "
            "classes, "
            "(?:...), (?i:...), look-around and * + ? {{m,n}}",
            where_, what, at_));
    }

    void escape(bool in_class) {
        if (at_ + 1 == pattern_.size()) refuse("a lone \\ at its end");
        const char name = pattern_[at_ + 1];
        if (name == 's' || name == 'S') {
            const std::string_view set = name == 's' ? kWhiteSpace : kNoWhiteSpace;
            result_ += in_class ? std::string(set) : fmt::format("[{}]", set);
            at_ += 2;
        } else if (name == 'p' || name == 'P') {
            property();
        } else if (name == 'x') {
            const std::size_t close = pattern_.find('}', at_);
            if (!next_is("\\x{") || close == std::string_view::npos) refuse("\\x without braces");
            copy(close + 1 - at_);
        } else if (std::string_view("dDrntf").find(name) != std::string_view::npos ||
                   std::ispunct(static_cast<unsigned char>(name)) != 0 || name == ' ') {
            copy(2);
        } else {
            refuse(fmt::format("\\{}", name));
        }
    }

    void property() {
        const std::size_t open = at_ + 2;
        const bool braces = open < pattern_.size() && pattern_[open] == '{';
        const std::size_t close = braces ? pattern_.find('}', open) : open + 1;
        if (close == std::string_view::npos || close > pattern_.size()) refuse("an unfinished \\p");
        const std::string_view name =
            braces ? pattern_.substr(open + 1, close - open - 1) : pattern_.substr(open, 1);
        if (std::find(kCategories.begin(), kCategories.end(), name) == kCategories.end()) {
            refuse(fmt::format("the property {}", name));
        }
        copy(close + (braces ? 1 : 0) - at_);
    }

    void character_class() {
        copy(1);
        if (next_is("^")) copy(1);
        if (next_is("]")) refuse("] at the beginning of a class");
        while (!next_is("]")) {
            if (at_ == pattern_.size()) refuse("an unfinished class");
            if (next_is("[")) refuse("a class within a class");
            if (next_is("&&")) refuse("&& in a class");
            if (next_is("\\")) {
                escape(true);
            } else {
                copy(1);
            }
        }
        copy(1);
    }

    void group() {
        if (next_is("(*")) refuse("(*");
        if (!next_is("(?")) return copy(1);
        for (const std::string_view kind : {"(?:", "(?i:", "(?i)", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
            if (next_is(kind)) return copy(kind.size());
        }
        refuse(std::string(pattern_.substr(at_, 4)));
    }

    void repetition() {
        std::size_t end = at_ + 1;
        const auto digits = [&] {
            const std::size_t first = end;
            while (end < pattern_.size() && std::isdigit(static_cast<unsigned char>(pattern_[end])) != 0)
                ++end;
            return end - first;
        };
        bool valid = digits() > 0;
        if (valid && end < pattern_.size() && pattern_[end] == ',') {
            ++end;
            (void)digits();
        }
        valid = valid && end < pattern_.size() && pattern_[end] == '}';
        if (!valid) refuse("{ that begins no repetition {m,n}");
        copy(end + 1 - at_);
        if (next_is("+") || next_is("?")) refuse(fmt::format("}}{}", pattern_[at_]));
    }

    std::string_view pattern_;
    const std::string& where_;
    std::size_t at_ = 0;
    std::string result_;
};

}  // namespace

std::string translate_pattern(std::string_view pattern, const std::string& where) {
    return Translator(pattern, where).translate();
}

std::string pattern_of_text(std::string_view text) {
    std::string pattern;
    for (const char c : text) {
        if (static_cast<unsigned char>(c) < 0x80) {
            pattern += fmt::format("\\x{{{:x}}}", static_cast<int>(c));
        } else {
            pattern.push_back(c);
        }
    }
    return pattern;
}

}  // namespace moesaic
