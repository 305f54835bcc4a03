#include "runtime/data/tokenizers/added_tokens.h"

#include <algorithm>

#include "runtime/base/error.h"
#include "runtime/data/tokenizers/utf8.h"

namespace moesaic {

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) {
    for (AddedToken& token : tokens) {
        MOESAIC_ASSERT(!token.content.empty(), "token {} is empty", token.id);
        const char first = token.content.front();
        auto& bucket = by_first_byte_[static_cast<unsigned char>(first)];
        if (bucket.empty()) first_bytes_.push_back(first);
        bucket.push_back(std::move(token));
    }
    for (auto& bucket : by_first_byte_) {
        std::stable_sort(bucket.begin(), bucket.end(), [](const AddedToken& a, const AddedToken& b) {
            return a.content.size() > b.content.size();
        });
    }
}

AddedTokens::Match AddedTokens::find(std::string_view text, std::size_t from) const {
    for (std::size_t at = text.find_first_of(first_bytes_, from); at != std::string_view::npos;
         at = text.find_first_of(first_bytes_, at + 1)) {
        const std::string_view rest = text.substr(at);
        for (const AddedToken& token : by_first_byte_[static_cast<unsigned char>(rest.front())]) {
            if (!rest.starts_with(token.content)) continue;
            Match match{at, at + token.content.size(), &token};
            while (token.strips_left) {
                const std::size_t bytes = trailing_white_space(text.substr(from, match.begin - from));
                if (bytes == 0) break;
                match.begin -= bytes;
            }
            while (token.strips_right) {
                const std::size_t bytes = leading_white_space(text.substr(match.end));
                if (bytes == 0) break;
                match.end += bytes;
            }
            return match;
        }
    }
    return {};
}

}  // namespace moesaic
