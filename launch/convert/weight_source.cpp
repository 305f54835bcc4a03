#include "launch/convert/weight_source.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "launch/convert/config_reader.h"
#include "launch/convert/declared_parameters.h"
#include "launch/convert/huggingface_folder.h"
#include "launch/convert/problem_list.h"
#include "launch/rank_runtime.h"
#include "launch/run_setup.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/checkpoint_reader.h"

namespace moesaic {

namespace {

/// Sequences of an imported model, unless the user says otherwise: its longest may need more memory than
/// there is.
constexpr i64 kMostPositions = 1024;

bool is_moment(const std::string& name) {
    return name.ends_with(kFirstMomentSuffix) || name.ends_with(kSecondMomentSuffix);
}

/// Tensors that old versions stored although they follow from the configuration.
bool is_derived(const std::string& name) {
    return name.ends_with(".rotary_emb.inv_freq");
}

}  // namespace

std::vector<i64> extents_of(const Shape& shape) {
    std::vector<i64> extents;
    for (int axis = 0; axis < shape.rank(); ++axis) extents.push_back(shape[axis]);
    return extents;
}

WeightSource WeightSource::open(const std::string& path) {
    std::error_code ignored;
    if (std::filesystem::exists(path + "/config.json", ignored)) return open_huggingface(path);
    return open_checkpoint(path);
}

WeightSource WeightSource::open_huggingface(const std::string& folder) {
    std::string why;
    if (!inner_file(folder, "config.json", why))
        throw UserError(
            fmt::format("{}/config.json: {}; name a folder as save_pretrained writes it", folder, why));
    ImportedConfig imported = read_huggingface_config(folder + "/config.json");
    const auto files = std::make_shared<HuggingFaceFolder>(folder);
    WeightSource source;
    source.config.model = imported.model;
    source.config.task.data.seq_len = std::min(imported.max_positions, kMostPositions);
    source.description = fmt::format("{} of {}", family_entry(imported.family).architecture, folder);
    source.warnings = std::move(imported.warnings);
    source.folder = folder;
    source.files_ = files;
    source.name_ = [family = imported.family](const std::string& ours) {
        return huggingface_name(family, ours);
    };
    source.find_ = [files, name = source.name_](const std::string& ours) { return files->find(name(ours)); };
    for (std::string& name : files->names()) {
        // A tied head may lie there, as a copy; the model reads the table in its place, as Hugging Face does.
        const bool copy = imported.model.tie_embeddings && name == "lm_head.weight";
        if (!copy && !is_derived(name)) source.names_.push_back(std::move(name));
    }
    return source;
}

WeightSource WeightSource::open_checkpoint(const std::string& checkpoint_or_run) {
    const std::string checkpoint = resolve_checkpoint(checkpoint_or_run);
    const auto reader = std::make_shared<CheckpointReader>(checkpoint);
    WeightSource source;
    source.config = checkpoint_config(checkpoint, {});
    if (source.config.task.kind != "lm")
        throw UserError(fmt::format("{}: task.kind is {}; only language models have other forms", checkpoint,
                                    source.config.task.kind));
    source.description = fmt::format("checkpoint {}", checkpoint);
    source.tokenizer_fingerprint = reader->manifest().tokenizer;
    source.files_ = reader;
    source.name_ = [](const std::string& ours) { return ours; };
    source.find_ = [reader](const std::string& name) {
        return reader->contains(name) ? &reader->entry(name) : nullptr;
    };
    for (const auto& [name, record] : reader->manifest().tensors)
        if (!is_moment(name)) source.names_.push_back(name);
    if (!source.config.model.vocabulary) {
        const SafetensorsEntry* const table = source.find_("model.embed_tokens.weight");
        if (!table || table->shape.empty())
            throw UserError(checkpoint + ": holds no model.embed_tokens.weight: is it a language model's?");
        source.config.model.vocabulary = table->shape[0];
    }
    return source;
}

void WeightSource::require_plausible(const ModelSpec& spec) const {
    const double described = count_declared(spec);
    if (described <= 2 * static_cast<double>(names_.size()) + 1000) return;
    throw UserError(fmt::format("{}: its configuration describes {:.0f} tensors, the files hold {}",
                                description, described, names_.size()));
}

void WeightSource::require(const ModelSpec& spec, std::span<const Parameter> parameters) const {
    MOESAIC_ASSERT(static_cast<double>(parameters.size()) <= count_declared(spec), "{} parameters of {}",
                   parameters.size(), count_declared(spec));
    std::vector<std::string> problems;
    std::set<std::string> known;
    for (const Parameter& parameter : parameters) {
        const std::string name = name_(parameter.name);
        known.insert(name);
        const SafetensorsEntry* const entry = find_(parameter.name);
        if (!entry) {
            problems.push_back(fmt::format("missing: {} {}", name, parameter.shape.text()));
        } else if (entry->shape != extents_of(parameter.shape)) {
            problems.push_back(fmt::format("wrong shape: {} is {}, should be {}", name, entry->shape_text(),
                                           parameter.shape.text()));
        } else if (!is_floating_dtype(entry->dtype_name) || (!folder.empty() && entry->dtype_name == "F64")) {
            problems.push_back(
                fmt::format("wrong type: {} holds {}; F32, BF16 and F16 are read", name, entry->dtype_name));
        }
    }
    for (const std::string& name : names_)
        if (!known.contains(name)) problems.push_back("too many: " + detail::shown_name(name));
    throw_if_any(problems, description + ": its tensors do not fit its configuration");
}

}  // namespace moesaic
