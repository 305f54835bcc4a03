#include "launch/run_setup.h"

#include <fmt/ranges.h>

#include <filesystem>
#include <numeric>

#include "launch/rank_runtime.h"
#include "runtime/checkpoint/manifest.h"

namespace moesaic {

namespace fs = std::filesystem;

namespace {

constexpr i64 kMostHeldoutSequences = 1024;  // `auto`: an evaluation stays a small part of a run

}  // namespace

RunSetup set_up_run(Config config) {
    RunSetup run;
    run.tokenizer = make_tokenizer(config.task.data.tokenizer);
    if (config.model.vocabulary && *config.model.vocabulary < run.tokenizer->vocabulary_size())
        throw UserError(fmt::format(
            "model.vocabulary: {} rows, but task.data.tokenizer '{}' has {} ids; at least as many rows",
            *config.model.vocabulary, config.task.data.tokenizer, run.tokenizer->vocabulary_size()));
    run.dataset = std::make_unique<Dataset>(
        DatasetOptions{config.task.data.path, config.task.data.seq_len, config.task.data.validation},
        *run.tokenizer);
    run.spec = resolve_model(config, run.tokenizer->vocabulary_size());
    run.config = std::move(config);
    return run;
}

RunSetup load_run(const std::string& config_file, const std::vector<std::string>& overrides) {
    LoadedConfig loaded = load_config(config_file, overrides);
    loaded.diagnostics.throw_if_any();
    return set_up_run(std::move(loaded.config));
}

Config checkpoint_config(const std::string& checkpoint_folder, const std::vector<std::string>& overrides) {
    const Manifest manifest = read_manifest(checkpoint_folder);
    LoadedConfig loaded =
        parse_config(manifest.config, checkpoint_folder + "/" + std::string(kManifestName) + ": config",
                     overrides, Purpose::inference);
    loaded.diagnostics.throw_if_any();
    return loaded.config;
}

std::vector<i64> probe_windows(const RunSetup& run) {
    const i64 count = std::min(run.config.generalization.probe_sequences, run.dataset->training_windows());
    std::vector<i64> windows;
    for (i64 position = 0; position < count; ++position) {
        windows.push_back(
            run.dataset->training_window_at(static_cast<u64>(run.config.run.seed), 0, position));
    }
    return windows;
}

std::vector<i64> heldout_windows(const RunSetup& run) {
    const i64 all = run.dataset->validation_windows();
    const i64 count =
        std::min(all, run.config.generalization.heldout_sequences.value_or(kMostHeldoutSequences));
    std::vector<i64> windows;
    for (i64 i = 0; i < count; ++i) windows.push_back(i * all / count);
    return windows;
}

std::string data_fingerprint(const RunSetup& run) {
    const Dataset& dataset = *run.dataset;
    std::string text = fmt::format("{} {} {} {}", dataset.training_windows(), dataset.validation_windows(),
                                   dataset.training_tokens(), dataset.validation_tokens());
    std::vector<i32> window(static_cast<std::size_t>(dataset.seq_len() + 1));
    for (const i64 index : {i64{0}, dataset.training_windows() / 2, dataset.training_windows() - 1}) {
        dataset.training_window(index, window.data());
        text += fmt::format(" {}", fmt::join(window, ","));
    }
    return text;
}

std::string prepare_run_folder(const std::string& folder, bool resume) {
    std::string moved;
    std::error_code error;
    if (!resume && fs::exists(folder, error) && !fs::is_empty(folder, error)) {
        for (int number = 1; moved.empty(); ++number) {
            const std::string candidate = fmt::format("{}.old-{}", folder, number);
            if (!fs::exists(candidate)) moved = candidate;
        }
        fs::rename(folder, moved, error);
        if (error)
            throw UserError(fmt::format("{}: cannot be moved aside: {}; choose another run.name or --out",
                                        folder, error.message()));
    }
    fs::create_directories(folder, error);
    if (error)
        throw UserError(
            fmt::format("{}: cannot be created: {}; choose another --out", folder, error.message()));
    return moved;
}

}  // namespace moesaic
