// The page of one run.
#pragma once

#include <string>

#include "launch/report/gnuplot.h"
#include "launch/report/run_history.h"

namespace moesaic {

/// The whole HTML file.
[[nodiscard]] std::string run_page(const RunHistory& run, const Gnuplot& gnuplot);

}  // namespace moesaic
