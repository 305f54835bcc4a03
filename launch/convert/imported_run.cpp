#include "launch/convert/imported_run.h"

#include <filesystem>

#include "launch/convert/huggingface_folder.h"
#include "runtime/base/log.h"
#include "runtime/data/tokenizer.h"

namespace moesaic {

namespace {

constexpr const char* kFolder = "huggingface";

}  // namespace

Config run_config(Config config, const std::string& folder, const std::vector<std::string>& overrides,
                  Purpose purpose) {
    name_after_folder(config.run, folder);
    LoadedConfig loaded =
        parse_config(to_yaml(config), folder + "/config.yaml (to be written)", overrides, purpose);
    loaded.diagnostics.throw_if_any();
    return loaded.config;
}

ImportedTokenizer imported_tokenizer(const WeightSource& source, const std::string& folder) {
    std::string why;
    const std::string kept = source.config.task.data.tokenizer;
    if (source.folder.empty()) return {kept, source.tokenizer_fingerprint};
    const auto path = inner_file(source.folder, "tokenizer.json", why);
    if (!path) return {kept, ""};
    try {
        const auto tokenizer = make_tokenizer(*path);
        if (tokenizer->vocabulary_size() > *source.config.model.vocabulary)
            throw UserError(fmt::format("has {} ids, the model {} rows", tokenizer->vocabulary_size(),
                                        *source.config.model.vocabulary));
        return {(std::filesystem::path(folder) / kFolder / "tokenizer.json").lexically_normal().string(),
                tokenizer->fingerprint()};
    } catch (const std::exception& error) {
        log_warn("{}: cannot be the run's tokenizer: {}; task.data.tokenizer is '{}'", *path, error.what(),
                 kept);
        return {kept, ""};
    }
}

std::vector<std::string> companion_names() {
    return {"config.json",     "generation_config.json",  "tokenizer.json",    "tokenizer_config.json",
            "vocab.json",      "special_tokens_map.json", "added_tokens.json", "merges.txt",
            "tokenizer.model", "chat_template.jinja"};
}

std::vector<CopiedFile> companions(const WeightSource& source) {
    std::vector<CopiedFile> files;
    if (source.folder.empty()) return files;
    for (const std::string& name : companion_names()) {
        std::string why;
        std::error_code ignored;
        const auto path = inner_file(source.folder, name, why);
        if (path) {
            files.push_back({*path, fmt::format("{}/{}", kFolder, name)});
        } else if (std::filesystem::exists(
                       std::filesystem::symlink_status(source.folder + "/" + name, ignored))) {
            log_warn("{}/{}: {}; it was left out", source.folder, name, why);
        }
    }
    return files;
}

std::string companion(const std::string& run_folder, const std::string& name) {
    std::error_code ignored;
    std::string path = fmt::format("{}/{}/{}", run_folder, kFolder, name);
    return !run_folder.empty() && std::filesystem::is_regular_file(path, ignored) ? path : "";
}

}  // namespace moesaic
