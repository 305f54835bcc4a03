// From a command line to what every command starts with: configuration, data, model shape; and the run
// folder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "launch/evaluation_units.h"
#include "layers/model_spec.h"
#include "runtime/config/load.h"
#include "runtime/data/sampler.h"
#include "runtime/data/tokenizer.h"

namespace moesaic {

/// What a configuration stands for before any rank-specific object exists.
struct RunSetup {
    Config config;
    std::unique_ptr<Tokenizer> tokenizer;  ///< of language models, else null
    std::unique_ptr<TaskData> dataset;
    ModelSpec spec;
    UnitChoice unit;
    /// Checksums of which samples train and which are held out, by their numbers and some of the content; and
    /// of the order that training meets them in, whatever share of them it keeps to.
    u64 split = 0, order = 0;
};

/// Reads and validates everything that needs no ranks; throws UserError with all mistakes at once.
[[nodiscard]] RunSetup load_run(const std::string& config_file, const std::vector<std::string>& overrides);
/// The same for a configuration that is at hand.
[[nodiscard]] RunSetup set_up_run(Config config);
/// The configuration that a checkpoint carries, with overrides; for inference.
[[nodiscard]] Config checkpoint_config(const std::string& checkpoint_folder,
                                       const std::vector<std::string>& overrides);

/// Overrides of a checkpoint's configuration that let its weights run on any number of ranks: no number
/// depends on how experts are shared.
[[nodiscard]] std::vector<std::string> any_layout();

/// Of the run's tokenizer; empty where it has none.
[[nodiscard]] std::string tokenizer_fingerprint(const RunSetup& run);
/// Throws UserError naming `what`, a thing that only language models can do, where the run's task is another.
void expect_language_model(const RunSetup& run, std::string_view what);

/// What the data section asks for, with a vocabulary that is known.
[[nodiscard]] DatasetOptions dataset_options(const DataConfig& data, i64 vocabulary);

/// Throws UserError where the checkpoint was trained with another tokenizer than the run has: its token ids
/// would mean something else.
void check_tokenizer(const RunSetup& run, const std::string& checkpoint_folder);

/// Throws UserError naming the keys of `model` that the run has otherwise than the run that wrote the
/// checkpoint had, and with which the same weights would compute something else or not fit. How training
/// treats the model (balance, capacity, noise, the rate of a bias) may change.
void check_model(const RunSetup& run, const std::string& checkpoint_folder);

/// Samples of the fixed training probe: the first that training sees, each once.
[[nodiscard]] std::vector<i64> probe_windows(const RunSetup& run);
/// Samples of the held-out shard: all, or the configured number spread evenly over the files.
[[nodiscard]] std::vector<i64> heldout_windows(const RunSetup& run);

/// Samples of the held-out shard from another distribution; none where the task has none.
[[nodiscard]] std::vector<i64> shifted_windows(const RunSetup& run);

/// The tokenizer, sizes of the data and some of their content: what ranks compare at start-up,
/// so that one node's other files do not spoil a run unseen.
[[nodiscard]] std::string data_fingerprint(const RunSetup& run);

/// Creates OUT/NAME on rank 0. A folder that an earlier run of that name left is moved aside, never
/// overwritten; returns where to, or an empty string. With `resume` the folder stays as it is.
std::string prepare_run_folder(const std::string& folder, bool resume);

}  // namespace moesaic
