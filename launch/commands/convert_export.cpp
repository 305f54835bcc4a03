// moesaic convert export: a checkpoint becomes a folder that Hugging Face's from_pretrained loads.
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "launch/commands/commands.h"
#include "launch/convert/config_writer.h"
#include "launch/convert/declared_parameters.h"
#include "launch/convert/imported_run.h"
#include "launch/rank_runtime.h"
#include "runtime/base/atomic_file.h"
#include "runtime/base/atomic_folder.h"
#include "runtime/base/log.h"
#include "runtime/base/mapped_file.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/data/tokenizer.h"

namespace moesaic {

namespace {

std::string tensor_file_name(i64 index, i64 files) {
    if (files == 1) return "model.safetensors";
    return fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, files);
}

void write_index(const std::string& folder, const TensorParts& parts) {
    nlohmann::ordered_json weight_map = nlohmann::ordered_json::object();
    i64 bytes = 0;
    for (std::size_t part = 0; part < parts.size(); ++part) {
        for (const PlannedTensor& tensor : parts[part]) {
            weight_map[tensor.name] = tensor_file_name(static_cast<i64>(part), std::ssize(parts));
            bytes +=
                *detail::checked_bytes(tensor.shape, detail::safetensors_element_bytes(tensor.dtype_name));
        }
    }
    const nlohmann::ordered_json index{{"metadata", {{"total_size", bytes}}}, {"weight_map", weight_map}};
    write_file_atomically(folder + "/model.safetensors.index.json", index.dump(2) + "\n");
}

void copy_companions(const std::string& run_folder, const std::string& folder) {
    for (const std::string& name : companion_names()) {
        const std::string path = companion(run_folder, name);
        if (path.empty() || name == "config.json") continue;
        const MappedFile contents(path);
        write_file_atomically(folder + "/" + name,
                              {reinterpret_cast<const char*>(contents.data()), contents.size()});
    }
}

/// The tokenizer of a run that was not imported: a tokenizer.json is what Hugging Face reads, the rest is
/// not.
void copy_tokenizer(const WeightSource& source, const std::string& folder) {
    const std::string& from = source.config.task.data.tokenizer;
    const std::string to = folder + "/tokenizer.json";
    std::error_code ignored;
    if (from == "bytes" || std::filesystem::exists(to, ignored)) return;
    if (std::filesystem::path(from).filename() != "tokenizer.json" ||
        !std::filesystem::is_regular_file(from, ignored)) {
        log_warn("task.data.tokenizer '{}' is no tokenizer.json: it was not exported", from);
        return;
    }
    const std::string& trained = source.tokenizer_fingerprint;
    if (!trained.empty() && make_tokenizer(from)->fingerprint() != trained) {
        log_warn("{}: is not the tokenizer that the model was trained with: it was not exported", from);
        return;
    }
    const MappedFile contents(from);
    write_file_atomically(to, {reinterpret_cast<const char*>(contents.data()), contents.size()});
    write_file_atomically(folder + "/tokenizer_config.json",
                          "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
}

}  // namespace

int convert_export_command(const ConvertExportOptions& options) {
    const std::string checkpoint = resolve_checkpoint(options.checkpoint);
    const WeightSource source = WeightSource::open_checkpoint(checkpoint);
    const ModelSpec spec = resolve_model(source.config, *source.config.model.vocabulary);
    const Family family = choose_family(source.config, spec, checkpoint);
    const std::vector<Parameter> parameters = declared_parameters(spec);
    source.require(spec, parameters);
    std::vector<PlannedTensor> tensors;
    tensors.reserve(parameters.size());
    for (const Parameter& parameter : parameters) {
        PlannedTensor& tensor = tensors.emplace_back();
        tensor.name = huggingface_name(family, parameter.name);
        tensor.dtype_name = options.brain_float ? "BF16" : "F32";
        tensor.shape = extents_of(parameter.shape);
        tensor.source = source.find(parameter.name);
    }
    const std::string run_folder = run_folder_of(checkpoint);
    AtomicFolder folder(options.out);
    const TensorParts parts = split_by_bytes(tensors, options.shard_bytes);
    write_tensor_files(folder.path(), parts, tensor_file_name, {{"format", "pt"}});
    if (parts.size() > 1) write_index(folder.path(), parts);
    write_file_atomically(
        folder.path() + "/config.json",
        huggingface_config(family, spec, options.brain_float, companion(run_folder, "config.json")));
    copy_companions(run_folder, folder.path());
    copy_tokenizer(source, folder.path());
    folder.commit();
    std::printf("exported %s as %s: %zu tensors in %zu file%s\n  folder        %s\n", checkpoint.c_str(),
                family_entry(family).architecture, tensors.size(), parts.size(), parts.size() == 1 ? "" : "s",
                options.out.c_str());
    return 0;
}

}  // namespace moesaic
