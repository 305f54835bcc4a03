// Regular expressions that cut text into words.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace moesaic {

/// The published pattern of GPT-2.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// A compiled pattern; immutable, threads may share it.
/// The syntax is what tokenizers write and what the engines of Python, Rust, Oniguruma and PCRE2 agree on;
/// white space (\s) is Unicode's White_Space. What they read differently (\w, \b, \h, named properties other
/// than general categories, classes within classes, ...) is refused.
class TextPattern {
  public:
    /// `where` names file and field in errors. Throws UserError for a pattern that is not valid, that is
    /// outside of the common syntax, or that can match nothing at all.
    TextPattern(std::string_view pattern, std::string where);
    TextPattern(TextPattern&&) noexcept;
    TextPattern& operator=(TextPattern&&) noexcept;
    ~TextPattern();

    /// Finds matches one after the other; one for each thread. Must not outlive the pattern.
    class Matcher {
      public:
        explicit Matcher(const TextPattern& pattern);
        Matcher(Matcher&&) noexcept;
        Matcher& operator=(Matcher&&) noexcept;
        ~Matcher();

        /// The first match in `text` at or after `from`; false where there is none. `text` must be
        /// well-formed UTF-8, `from` the beginning of a character. Throws UserError where the pattern takes
        /// so many steps that it would never end.
        bool find(std::string_view text, std::size_t from);
        [[nodiscard]] std::size_t begin() const { return begin_; }
        [[nodiscard]] std::size_t end() const { return end_; }

      private:
        struct MatchData;
        const TextPattern* pattern_;
        std::unique_ptr<MatchData> data_;
        std::size_t begin_ = 0, end_ = 0;
    };

  private:
    struct Code;
    std::string where_;
    std::unique_ptr<Code> code_;
};

/// `pattern` in PCRE2's syntax. Throws UserError, beginning with `where`, for what the engines read
/// differently.
[[nodiscard]] std::string translate_pattern(std::string_view pattern, const std::string& where);
/// A pattern that matches `text` and nothing else.
[[nodiscard]] std::string pattern_of_text(std::string_view text);

}  // namespace moesaic
