// The page of a study.
#pragma once

#include <string>
#include <vector>

#include "launch/report/gnuplot.h"

namespace moesaic {

/// Whether the folder is a study's.
[[nodiscard]] bool is_study_folder(const std::string& folder);
/// Columns that the study's claims speak of, each once.
[[nodiscard]] std::vector<std::string> claimed_columns(const std::string& folder);
/// The whole HTML file, from results.jsonl and claims.jsonl of the folder.
[[nodiscard]] std::string study_page(const std::string& folder, const Gnuplot& gnuplot);

}  // namespace moesaic
