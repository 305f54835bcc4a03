#include "runtime/config/diagnostics.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <numeric>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

/// The number after the last colon of "file:line"; the largest for anything else.
long line_of(const Diagnostic& diagnostic) {
    const std::size_t colon = diagnostic.where.rfind(':');
    long line = std::numeric_limits<long>::max();
    if (colon == std::string::npos || diagnostic.where.starts_with("--set ")) return line;
    std::from_chars(diagnostic.where.data() + colon + 1, diagnostic.where.data() + diagnostic.where.size(),
                    line);
    return line;
}

}  // namespace

void Diagnostics::sort_by_line() {
    std::stable_sort(list_.begin(), list_.end(),
                     [](const Diagnostic& a, const Diagnostic& b) { return line_of(a) < line_of(b); });
}

std::string Diagnostics::text() const {
    std::string text;
    for (const Diagnostic& one : list_) {
        if (!text.empty()) text += '\n';
        text += one.where;
        if (!one.key.empty()) text += ": " + one.key;
        text += ": " + one.message;
        if (!one.hint.empty()) text += "; " + one.hint;
    }
    return text;
}

void Diagnostics::throw_if_any() const {
    if (!empty()) throw UserError(text());
}

namespace {

std::size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
        }
    }
    return row.back();
}

}  // namespace

std::string nearest_name(const std::string& name, const std::vector<std::string>& candidates) {
    if (name.size() > 64) return {};
    std::string best;
    std::size_t distance = std::max<std::size_t>(2, name.size() / 3) + 1;
    for (const std::string& candidate : candidates) {
        const std::size_t edits = edit_distance(name, candidate);
        if (edits < distance) {
            distance = edits;
            best = candidate;
        }
    }
    return best;
}

}  // namespace moesaic
