// A run folder that no training wrote: configuration, and a checkpoint of step 0 without moments.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/checkpoint/tensor_files.h"
#include "runtime/config/config.h"

namespace moesaic {

/// Bytes of data in a shard of such a checkpoint, as Hugging Face cuts its files.
inline constexpr i64 kShardBytes = 5'000'000'000;

/// A file that goes along, unchanged.
struct CopiedFile {
    std::string from;
    std::string to;  ///< relative to the run folder
};

/// Names the run after its folder: run.out and run.name. A name that no run may have is a UserError.
void name_after_folder(RunConfig& run, const std::string& folder);

/// Writes the folder as a whole (see AtomicFolder), with what eval, generate and train --resume need.
/// `tokenizer` is the fingerprint of the one that the weights were trained with, empty where it is not known.
void write_run_folder(const std::string& folder, const Config& config, const std::string& tokenizer,
                      std::span<const PlannedTensor> tensors, std::span<const CopiedFile> files);

/// OUT/NAME of a checkpoint OUT/NAME/checkpoints/step-...; empty for a checkpoint that lies elsewhere.
[[nodiscard]] std::string run_folder_of(const std::string& checkpoint);

}  // namespace moesaic
