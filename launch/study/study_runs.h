// From a study to its table: every point and seed trained or simulated, complete ones taken as they are.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/study/study_table.h"
#include "runtime/config/study_config.h"

namespace moesaic {

struct StudyOptions {
    std::string program;  ///< this binary
    bool resume = false;  ///< keep complete runs of an earlier start
    bool print = true;    ///< a line per run
};

/// Mistakes that every run would end with: keys that no configuration has, values that it refuses.
void check_points(const StudyConfig& study, Diagnostics& diagnostics);

/// Trains what is missing below `folder`/runs; a run that fails is a row with its status, and does not stop
/// the others.
/// Empty when a signal asked it to stop: complete runs stay for --resume.
[[nodiscard]] std::optional<StudyTable> run_study(const StudyConfig& study, const std::string& folder,
                                                  const StudyOptions& options);

}  // namespace moesaic
