#include "launch/run_setup.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>

#include "launch/rank_runtime.h"
#include "runtime/base/checksum.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/data/first_share.h"
#include "runtime/data/generated/skills_data.h"
#include "runtime/data/generated/sraven_data.h"
#include "runtime/data/tables/function_table.h"
#include "runtime/data/tables/table_data.h"

namespace moesaic {

namespace fs = std::filesystem;

namespace {

constexpr i64 kFunctionSamples = 10000;
constexpr i64 kMostHeldoutSequences = 1024;  // `auto`: an evaluation stays a small part of a run
constexpr i64 kLookedAt = 64;                // samples of a part, and places of the order, in a checksum

/// So many numbers below `count` at most, evenly spread.
std::vector<i64> spread_over(i64 count, i64 most) {
    std::vector<i64> numbers;
    for (i64 i = 0; i < std::min(count, most); ++i) numbers.push_back(i * count / std::min(count, most));
    return numbers;
}

u64 split_checksum(const TaskData& data) {
    const SampleShape shape = data.shape();
    const auto rows = static_cast<std::size_t>(shape.seq_len);
    std::vector<i32> tokens(rows + 1), targets(rows);
    std::vector<float> features(rows * static_cast<std::size_t>(shape.features));
    std::vector<double> values(rows * static_cast<std::size_t>(std::max<i64>(shape.outputs, 1)));
    WindowBuffer buffer(tokens.data());
    buffer.targets = targets.data();
    buffer.features = features.data();
    buffer.values = values.data();
    Checksum checksum;
    const auto add = [&](const auto& numbers) {
        checksum.update(numbers.data(), numbers.size() * sizeof(numbers.front()));
    };
    const auto add_sample = [&] {
        add(tokens);
        add(targets);
        add(features);
        add(values);
    };
    add(fmt::format("{} {}", data.validation_windows(), data.fingerprint()));
    for (const i64 number : spread_over(data.training_windows(), kLookedAt)) {
        data.training_window(number, buffer);
        add_sample();
    }
    for (const i64 number : spread_over(data.validation_windows(), kLookedAt)) {
        data.validation_window(number, buffer);
        add_sample();
    }
    return checksum.value();
}

u64 order_checksum(const TaskData& data, u64 seed) {
    Checksum checksum;
    checksum.update(&seed, sizeof seed);
    for (const i64 number : spread_over(data.first_epoch_sequences(seed), kLookedAt)) {
        const i64 sample = data.training_sequence(seed, number);
        checksum.update(&sample, sizeof sample);
    }
    return checksum.value();
}

}  // namespace

DatasetOptions dataset_options(const DataConfig& data, i64 vocabulary) {
    DatasetOptions options(data.path, data.seq_len, data.validation);
    options.vocabulary = vocabulary;
    const auto source_of = [&](const SourceConfig& given) {
        const auto chosen = [](const std::string& own, const std::string& inherited) {
            return own == kInherit ? inherited : own;
        };
        SourceOptions source;
        source.path = given.path;
        source.name = given.name == "auto" ? "" : given.name;
        source.weight = given.weight;
        source.format = chosen(given.format, data.format);
        source.text_key = chosen(given.text_key, data.text_key);
        source.token_type = chosen(given.token_type, data.token_type);
        source.end_of_document = chosen(given.end_of_document, data.end_of_document);
        return source;
    };
    SourceConfig single;
    single.path = data.path;
    options.sources.clear();
    for (const SourceConfig& source : data.sources) options.sources.push_back(source_of(source));
    if (data.sources.empty()) options.sources.push_back(source_of(single));
    return options;
}

namespace {

void set_up_language_model(RunSetup& run) {
    const Config& config = run.config;
    const DataConfig& data = config.task.data;
    run.tokenizer = make_tokenizer(data.tokenizer);
    const i64 vocabulary = data.vocabulary.value_or(run.tokenizer->vocabulary_size());
    if (config.model.vocabulary && *config.model.vocabulary < vocabulary)
        throw UserError(
            fmt::format("model.vocabulary: {} rows, but the data have {} ids (task.data.tokenizer '{}', "
                        "task.data.vocabulary); at least as many rows",
                        *config.model.vocabulary, vocabulary, data.tokenizer));
    run.dataset = std::make_unique<Dataset>(dataset_options(data, vocabulary), *run.tokenizer);
}

std::unique_ptr<TaskData> make_table_data(const Config& config) {
    const TaskConfig& task = config.task;
    const DataConfig& data = task.data;
    Table table;
    if (data.function != "none") {
        FunctionOptions options;
        options.function = data.function;
        options.dimensions = data.dimensions;
        options.samples = data.samples.value_or(kFunctionSamples);
        options.noise = data.noise;
        options.seed = static_cast<u64>(data.split_seed);
        table = make_function_table(options);
    } else {
        table = read_table(
            {data.path, data.format, data.target, data.features, data.labels, task.kind == "classification"});
    }
    auto examples = std::make_unique<TableData>(
        std::move(table), TableDataOptions{data.validation, static_cast<u64>(data.split_seed),
                                           data.standardize, data.random_labels});
    const i64 cells = config.model.moe.experts;
    if (config.model.kind == "momlp")
        examples->divide(cells, config.train.batch_sequences / cells, config.model.prototypes,
                         config.model.branches);
    return examples;
}

/// Of sraven and skills.
template <class Section>
InstanceOptions instance_options(const Section& section, const DataConfig& data) {
    InstanceOptions options;
    options.held_out = section.held_out;
    options.samples = data.samples.value_or(options.samples);
    options.test = section.test;
    options.seed = static_cast<u64>(data.split_seed);
    return options;
}

std::unique_ptr<TaskData> make_sraven_data(const TaskConfig& task) {
    return std::make_unique<SravenData>(SravenOptions{instance_options(task.sraven, task.data),
                                                      static_cast<int>(task.sraven.features),
                                                      static_cast<int>(task.sraven.values)});
}

std::unique_ptr<TaskData> make_skills_data(const TaskConfig& task) {
    SkillsOptions options{instance_options(task.skills, task.data)};
    options.skills = static_cast<int>(task.skills.skills);
    options.combined = static_cast<int>(task.skills.combined);
    options.topics = static_cast<int>(task.skills.topics);
    options.values = static_cast<int>(task.skills.values);
    options.length = static_cast<int>(task.skills.length);
    return std::make_unique<SkillsData>(options);
}

}  // namespace

RunSetup set_up_run(Config config) {
    RunSetup run;
    run.config = std::move(config);
    const std::string& kind = run.config.task.kind;
    if (kind == "lm") {
        set_up_language_model(run);
    } else if (kind == "sraven") {
        run.dataset = make_sraven_data(run.config.task);
    } else if (kind == "skills") {
        run.dataset = make_skills_data(run.config.task);
    } else {
        run.dataset = make_table_data(run.config);
    }
    run.split = split_checksum(*run.dataset);
    run.order = order_checksum(*run.dataset, static_cast<u64>(run.config.run.seed));
    if (const double share = run.config.task.data.training_share; share < 1)
        run.dataset = std::make_unique<FirstShare>(std::move(run.dataset), share);
    run.spec = resolve_model(run.config, run.dataset->shape());
    run.unit = choose_unit(run.config, run.spec, *run.dataset, heldout_windows(run), probe_windows(run));
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

std::vector<std::string> any_layout() {
    return {"parallel.expert=auto", "parallel.expert_tensor=1"};
}

void check_tokenizer(const RunSetup& run, const std::string& checkpoint_folder) {
    const std::string trained = read_manifest(checkpoint_folder).tokenizer;
    const std::string found = tokenizer_fingerprint(run);
    if (trained.empty() || found.empty() || trained == found) return;
    throw UserError(fmt::format(
        "{}: was trained with another tokenizer: {}, and task.data.tokenizer '{}' ({}) is {}; give the one "
        "it was trained with, wherever it is now: --set task.data.tokenizer=PATH",
        checkpoint_folder, trained, run.config.task.data.tokenizer, run.tokenizer->describe(), found));
}

namespace {

/// Keys of `model` with which the same weights are the same model, or whose resolved values are compared.
bool may_change(std::string_view key) {
    constexpr std::string_view kSections[] = {"model.moe.balance", "model.moe.capacity"};
    constexpr std::string_view kKeys[] = {"model.vocabulary",
                                          "model.head_dim",
                                          "model.init_std",
                                          "model.dense_hidden",
                                          "model.moe.router.normalize",
                                          "model.moe.router.bias_rate",
                                          "model.moe.router.bias_recentre",
                                          "model.moe.router.jitter",
                                          "model.moe.router.prototypes",
                                          "model.moe.router.allow_noncausal",
                                          "model.moe.router.trace",
                                          "model.moe.router.traffic"};
    return std::ranges::find(kKeys, key) != std::end(kKeys) ||
           std::ranges::any_of(kSections, [&](std::string_view section) { return key.starts_with(section); });
}

/// What the weights mean, by key; shapes of tensors are compared when these are read.
std::map<std::string, std::string> meaning_of(const Config& config) {
    std::map<std::string, std::string> meaning;
    for (const auto& [key, value] : flatten(config)) {
        const bool of_experts = key.starts_with("model.moe.") && key != "model.moe.activation";
        if (!key.starts_with("model.") || may_change(key)) continue;
        if (!of_experts || config.model.moe.experts > 0 || key == "model.moe.experts") meaning[key] = value;
    }
    if (config.model.moe.experts > 0)
        meaning["model.moe.router.normalize"] = config.model.moe.normalized() ? "true" : "false";
    return meaning;
}

}  // namespace

void check_model(const RunSetup& run, const std::string& checkpoint_folder) {
    const Manifest manifest = read_manifest(checkpoint_folder);
    if (manifest.config.empty()) return;  // another program's
    const std::string name = checkpoint_folder + "/" + std::string(kManifestName) + ": config";
    // Its mistakes do not matter here: files that were there then, limits of training.
    const Config trained = parse_config(manifest.config, name, {}, Purpose::inference).config;
    std::map<std::string, std::string> before = meaning_of(trained), now = meaning_of(run.config);
    std::string changes;
    for (const auto& [key, value] : before) {
        if (now.contains(key) && now[key] != value)
            changes += fmt::format("\n  {}: {} in the checkpoint, {} here", key, value, now[key]);
    }
    if (changes.empty()) return;
    throw UserError(fmt::format(
        "{}: the checkpoint is of another model:{}\ngive these keys as they were trained. Another model from "
        "the same weights: `convert export`, change config.json, `convert import`; experts from a dense one: "
        "`convert upcycle`",
        checkpoint_folder, changes));
}

std::vector<i64> probe_windows(const RunSetup& run) {
    const i64 count = std::min(run.config.generalization.probe_sequences, run.dataset->training_windows());
    std::vector<i64> windows;
    std::set<i64> seen;  // a small source of a blend may come round again within the probe
    for (i64 number = 0; number < 2 * count && std::ssize(windows) < count; ++number) {
        const i64 window = run.dataset->training_sequence(static_cast<u64>(run.config.run.seed), number);
        if (seen.insert(window).second) windows.push_back(window);
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

std::vector<i64> shifted_windows(const RunSetup& run) {
    std::vector<i64> windows;
    for (i64 i = 0; i < run.dataset->shifted_windows(); ++i)
        windows.push_back(run.dataset->validation_windows() + i);
    return windows;
}

std::string tokenizer_fingerprint(const RunSetup& run) {
    return run.tokenizer ? run.tokenizer->fingerprint() : "";
}

void expect_language_model(const RunSetup& run, std::string_view what) {
    if (run.tokenizer) return;
    throw UserError(
        fmt::format("{}: is for language models, and task.kind is {}", what, run.config.task.kind));
}

std::string data_fingerprint(const RunSetup& run) {
    return tokenizer_fingerprint(run) + " " + run.dataset->fingerprint();
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
