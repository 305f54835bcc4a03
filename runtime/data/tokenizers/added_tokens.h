// Tokens that are recognised in the text itself, before it is cut into words.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

struct AddedToken {
    std::string content;  ///< not empty
    i32 id = 0;
    bool strips_left = false, strips_right = false;  ///< takes the white space on that side with it
};

/// Finds the leftmost and, of those that begin there, longest added token, as Hugging Face does. Immutable:
/// threads may share it.
class AddedTokens {
  public:
    explicit AddedTokens(std::vector<AddedToken> tokens);

    /// Calls on_text(piece) and on_token(id) in the order of the text; pieces are never empty.
    template <class OnText, class OnToken>
    void split(std::string_view text, const OnText& on_text, const OnToken& on_token) const {
        std::size_t done = 0;
        for (Match match = find(text, 0); match.token != nullptr; match = find(text, done)) {
            if (match.begin > done) on_text(text.substr(done, match.begin - done));
            on_token(match.token->id);
            done = match.end;
        }
        if (done < text.size()) on_text(text.substr(done));
    }

  private:
    struct Match {
        std::size_t begin = 0, end = 0;  // with the white space that the token takes
        const AddedToken* token = nullptr;
    };
    /// The first match at or after `from`, which takes nothing before `from`.
    [[nodiscard]] Match find(std::string_view text, std::size_t from) const;

    std::array<std::vector<AddedToken>, 256> by_first_byte_;  // longest first
    std::string first_bytes_;
};

}  // namespace moesaic
