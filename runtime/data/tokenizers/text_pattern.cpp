// The one file that knows PCRE2.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/data/tokenizers/text_pattern.h"

#include <pcre2.h>

#include <algorithm>
#include <array>

#include "runtime/base/error.h"
#include "runtime/base/types.h"

namespace moesaic {
namespace {

std::string pcre2_message(int code) {
    std::array<PCRE2_UCHAR, 256> text{};
    pcre2_get_error_message(code, text.data(), text.size());
    return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR units_of(std::string_view text) {
    return reinterpret_cast<PCRE2_SPTR>(text.data() != nullptr ? text.data() : "");
}

}  // namespace

struct TextPattern::Code {
    explicit Code(pcre2_code* compiled) : handle(compiled) {}
    Code(const Code&) = delete;
    Code& operator=(const Code&) = delete;
    ~Code() { pcre2_code_free(handle); }
    pcre2_code* handle;
};

struct TextPattern::Matcher::MatchData {
    explicit MatchData(const pcre2_code* code)
        : handle(pcre2_match_data_create_from_pattern(code, nullptr)),
          context(pcre2_match_context_create(nullptr)) {}
    MatchData(const MatchData&) = delete;
    MatchData& operator=(const MatchData&) = delete;
    ~MatchData() {
        pcre2_match_data_free(handle);
        pcre2_match_context_free(context);
    }
    pcre2_match_data* handle;
    pcre2_match_context* context;
};

TextPattern::TextPattern(std::string_view pattern, std::string where) : where_(std::move(where)) {
    const std::string translated = translate_pattern(pattern, where_);
    int error = 0;
    PCRE2_SIZE offset = 0;
    const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
        pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
    // Lines end in LF wherever PCRE2 was built, and ^ and $ stand for their ends, as in Oniguruma.
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    pcre2_code* const compiled =
        pcre2_compile(units_of(translated), translated.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE,
                      &error, &offset, context.get());
    if (compiled == nullptr) {
        throw UserError(
            fmt::format("{}: the regular expression is not valid: {} (at byte {} of {}); mend "
                        "it or take it out",
                        where_, pcre2_message(error), offset, translated));
    }
    code_ = std::make_unique<Code>(compiled);
    u32 matches_empty = 0;
    pcre2_pattern_info(compiled, PCRE2_INFO_MATCHEMPTY, &matches_empty);
    if (matches_empty != 0) {
        throw UserError(fmt::format(
            "{}: the regular expression {} can match nothing at all, so it cuts no words; use one "
            "that takes at least one character",
            where_, pattern));
    }
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // where there is none, matching interprets: slower
}

TextPattern::TextPattern(TextPattern&&) noexcept = default;
TextPattern& TextPattern::operator=(TextPattern&&) noexcept = default;
TextPattern::~TextPattern() = default;

TextPattern::Matcher::Matcher(const TextPattern& pattern)
    : pattern_(&pattern), data_(std::make_unique<MatchData>(pattern.code_->handle)) {}

TextPattern::Matcher::Matcher(Matcher&&) noexcept = default;
TextPattern::Matcher& TextPattern::Matcher::operator=(Matcher&&) noexcept = default;
TextPattern::Matcher::~Matcher() = default;

bool TextPattern::Matcher::find(std::string_view text, std::size_t from) {
    const auto match = [&](u32 options) {
        // Without PCRE2_NO_UTF_CHECK every call would read the whole text.
        return pcre2_match(pattern_->code_->handle, units_of(text), text.size(), from,
                           PCRE2_NO_UTF_CHECK | options, data_->handle, data_->context);
    };
    // Steps back over a long run of spaces are as many as the run is long.
    constexpr std::size_t kSteps = 10'000'000;
    pcre2_set_match_limit(data_->context,
                          static_cast<u32>(std::min<std::size_t>(kSteps + 4 * text.size(), ~u32{0})));
    int result = match(0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) return false;
    if (result < 0) {
        throw UserError(
            fmt::format("{}: the regular expression gave up on a text of {} bytes: {}; write it without "
                        "repetitions inside repetitions",
                        pattern_->where_, text.size(), pcre2_message(result)));
    }
    const PCRE2_SIZE* const bounds = pcre2_get_ovector_pointer(data_->handle);
    begin_ = bounds[0];
    end_ = bounds[1];
    return true;
}

}  // namespace moesaic
