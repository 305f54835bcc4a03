// What a study claims, judged on its table: a verdict with the numbers that it rests on.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "launch/study/study_table.h"
#include "runtime/base/types.h"
#include "runtime/config/study_config.h"

namespace moesaic {

enum class Verdict { reproduced, not_reproduced, inconclusive };
[[nodiscard]] std::string_view name_of(Verdict verdict);

struct ClaimResult {
    std::string name, kind, of, statement;  ///< `of`: the column that it speaks of
    Verdict verdict = Verdict::inconclusive;
    std::string finding;  ///< one sentence with the numbers
    std::optional<double> estimate, low, high, p;
    std::optional<double> smallest_detectable;  ///< effect that the runs could have seen
    long rows = 0;                              ///< that it rests on
    long missing = 0;                           ///< rows that it speaks of, but without a number

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("name", name);
        visit("kind", kind);
        visit("of", of);
        visit("statement", statement);
        visit("verdict", name_of(verdict));
        visit("finding", finding);
        visit("estimate", estimate);
        visit("low", low);
        visit("high", high);
        visit("p", p);
        visit("smallest_detectable", smallest_detectable);
        visit("rows", i64{rows});
        visit("missing", i64{missing});
    }
};

/// The rows that a claim speaks of: those which meet all its `where.COLUMN` conditions ("4", ">= 1000", "<
/// 8") and, where it has them, those of `first` or of `second`.
struct ClaimRows {
    std::vector<const StudyRow*> complete;  ///< with a number in every column that the claim names
    long missing = 0;  ///< without; failed runs that lack what a condition asks for are among them
};
[[nodiscard]] ClaimRows rows_of(const StudyClaim& claim, const StudyTable& table);

/// A kind of claim: which options it has, and how it is judged.
struct ClaimKind {
    std::string_view name, help;
    std::string_view needs, takes;  ///< options, separated by blanks; besides `where`
    bool every_cell;  ///< needs five seeds in each cell; the others count pairs of seeds themselves
    void (*judge)(const StudyClaim&, const StudyTable&, const std::vector<const StudyRow*>&, ClaimResult&);
};
[[nodiscard]] std::span<const ClaimKind> claim_kinds();

/// Mistakes in claims that can be seen without a run: unknown kinds, options that are missing or unknown.
void check_claims(const StudyConfig& study, Diagnostics& diagnostics);

/// Measured columns that the claims speak of, each once.
[[nodiscard]] std::vector<std::string> columns_of(const std::vector<StudyClaim>& claims,
                                                  const StudyTable& table);

/// Inconclusive, and says why, where no run has a column that the claim names, where more than a tenth of the
/// rows that it speaks of have no number, and where seeds are fewer than five.
[[nodiscard]] ClaimResult judge(const StudyClaim& claim, const StudyTable& table);

}  // namespace moesaic
