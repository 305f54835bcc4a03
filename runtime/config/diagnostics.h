// The user's mistakes, collected and reported together.
#pragma once

#include <string>
#include <vector>

namespace moesaic {

struct Diagnostic {
    std::string where;    ///< "file:line" or "--set key=value"
    std::string key;      ///< dotted, e.g. "model.moe.top_k"
    std::string message;  ///< what is wrong
    std::string hint;     ///< what would be right
};

class Diagnostics {
  public:
    void add(Diagnostic diagnostic) { list_.push_back(std::move(diagnostic)); }
    [[nodiscard]] bool empty() const { return list_.empty(); }
    [[nodiscard]] const std::vector<Diagnostic>& list() const { return list_; }
    /// In the order of the file's lines; what has no line (overrides) keeps its order at the end.
    void sort_by_line();
    /// One line each: `where: key: message; hint`.
    [[nodiscard]] std::string text() const;
    /// Throws UserError with text() when there is any.
    void throw_if_any() const;

  private:
    std::vector<Diagnostic> list_;
};

/// The candidate that differs from `name` by the fewest edits, or empty when none is near.
[[nodiscard]] std::string nearest_name(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace moesaic
