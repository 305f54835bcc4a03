// How each kind of claim is judged; the table of them is in claims.cpp.
#pragma once

#include <vector>

#include "launch/study/claims.h"

namespace moesaic {

// `rows` meet the claim's conditions and have a number for `of`; each sets verdict, finding and numbers.
void judge_slope(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>& rows,
                 ClaimResult& result);
void judge_difference(const StudyClaim& claim, const StudyTable& table,
                      const std::vector<const StudyRow*>& rows, ClaimResult& result);
void judge_ratio(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>& rows,
                 ClaimResult& result);
void judge_exceeds(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>& rows,
                   ClaimResult& result);
void judge_agrees(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>& rows,
                  ClaimResult& result);
void judge_rank_correlation(const StudyClaim& claim, const StudyTable& table,
                            const std::vector<const StudyRow*>& rows, ClaimResult& result);
void judge_optimum(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>& rows,
                   ClaimResult& result);
void judge_predictor(const StudyClaim& claim, const StudyTable& table,
                     const std::vector<const StudyRow*>& rows, ClaimResult& result);

}  // namespace moesaic
