// A run small enough for tests that train it on many layouts.
#pragma once

#include "launch/run_setup.h"
#include "tests/support/source_folder.h"

namespace moesaic {

/// 20 steps of configs/tiny.yaml with shorter sequences and eight experts, so that every number of ranks up
/// to 8 has every expert-parallel size.
[[nodiscard]] inline RunSetup tiny_run(const std::vector<std::string>& overrides = {}) {
    const std::string root = MOESAIC_SOURCE_DIR;
    std::vector<std::string> all{"task.data.path=" + root + "/configs/data/quad",
                                 "task.data.seq_len=16",
                                 "model.moe.experts=8",
                                 "train.steps=20",
                                 "train.log_every=5",
                                 "train.eval_every=10",
                                 "train.checkpoint_every=10"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    return load_run(root + "/configs/tiny.yaml", all);
}

}  // namespace moesaic
