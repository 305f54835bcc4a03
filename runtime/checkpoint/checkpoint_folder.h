// The checkpoints of a run as folders: which are complete, which is the newest, which may go.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/checkpoint/manifest.h"

namespace moesaic {

struct CheckpointFolder {
    i64 step = 0;
    std::string path;
    bool complete = false;
};

/// RUN/checkpoints.
[[nodiscard]] std::string checkpoints_folder(const std::string& run_folder);

/// Creates RUN/checkpoints/step-XXXXXXXX for writing and returns its path. What an earlier run left there is
/// removed, its manifest first; call it on one rank, before the others write their shards.
std::string prepare_checkpoint_folder(const std::string& run_folder, i64 step);

/// All of a run, by rising step.
[[nodiscard]] std::vector<CheckpointFolder> list_checkpoints(const std::string& run_folder);

/// Names this step's checkpoint as the newest, in the file RUN/checkpoints/latest; after its manifest.
void write_latest(const std::string& run_folder, i64 step);

/// The checkpoint that `latest` names or, where that file is missing or names no complete checkpoint, the
/// complete one of the highest step.
[[nodiscard]] std::optional<std::string> find_latest(const std::string& run_folder);

/// The checkpoint folder meant by `path`: itself, or the newest of the run folder (or its `checkpoints`) that
/// it is. Anything else is a UserError that says what would be right.
[[nodiscard]] std::string resolve_checkpoint(const std::string& path);

/// Which folders go when the newest `keep` complete ones up to the one that find_latest returns stay (0 keeps
/// all); of the incomplete only those older than a complete one that counts. Later ones, which a run that
/// returned to an earlier checkpoint has left behind, go first, once there are two complete ones without
/// them.
[[nodiscard]] std::vector<std::string> checkpoints_to_prune(const std::string& run_folder, i64 keep);

/// Removes those folders and returns their paths; the manifest goes first, so that an interruption leaves an
/// incomplete checkpoint and not a broken one.
std::vector<std::string> prune_checkpoints(const std::string& run_folder, i64 keep);

}  // namespace moesaic
