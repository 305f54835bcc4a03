// A MoMLP's prototypes: part of its checkpoints, and found anew from the same data.
#pragma once

#include "launch/rank_runtime.h"
#include "launch/run_setup.h"

namespace moesaic {

/// Of other models than MoMLPs nothing. Puts the prototypes that the run's data give into the store; where it
/// was loaded from `checkpoint`, compares instead, and throws UserError where they are others: every example
/// would go to an expert that was trained on another cell.
void adopt_prototypes(RankRuntime& runtime, const RunSetup& run, const std::string& checkpoint = "");

}  // namespace moesaic
