#include "launch/convert/huggingface_folder.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "launch/convert/json_document.h"
#include "launch/convert/problem_list.h"
#include "runtime/base/error.h"

namespace moesaic {

namespace fs = std::filesystem;

namespace {

bool lies_within(const fs::path& inner, const fs::path& outer) {
    return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

/// Where Hugging Face's cache keeps what the links of a snapshot lead to: models--X/snapshots/HASH has
/// models--X/blobs.
fs::path cache_blobs(const fs::path& folder) {
    const bool snapshot = folder.parent_path().filename() == "snapshots";
    return snapshot ? folder.parent_path().parent_path() / "blobs" : folder;
}

/// What `git clone` leaves instead of a file when Git LFS is not installed.
bool is_lfs_pointer(const MappedFile& file) {
    constexpr std::string_view kStart = "version https://git-lfs";
    return file.size() >= kStart.size() &&
           std::string_view(reinterpret_cast<const char*>(file.data()), kStart.size()) == kStart;
}

}  // namespace

std::optional<std::string> inner_file(const std::string& folder, const std::string& name, std::string& why) {
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
        why = "is not the name of a file in this folder";
        return {};
    }
    std::error_code failure;
    const fs::path root = fs::canonical(folder, failure);
    const fs::path target = failure ? fs::path() : fs::canonical(root / name, failure);
    if (failure) {
        why = failure == std::errc::no_such_file_or_directory ? "there is no such file" : failure.message();
    } else if (!lies_within(target, root) && !lies_within(target, cache_blobs(root))) {
        why = "is a link to a file outside of this folder";
    } else if (!fs::is_regular_file(target, failure)) {
        why = "is not a regular file";
    } else {
        return folder + "/" + name;
    }
    return {};
}

HuggingFaceFolder::HuggingFaceFolder(std::string folder) : folder_(std::move(folder)) {
    constexpr const char* kSingle = "model.safetensors";
    const std::string index = folder_ + "/model.safetensors.index.json";
    std::error_code ignored;
    if (fs::exists(fs::symlink_status(folder_ + "/" + kSingle, ignored))) {
        open_file(kSingle);
    } else if (fs::exists(fs::symlink_status(index, ignored))) {
        open_index(index);
    } else {
        const bool pickled = fs::exists(folder_ + "/pytorch_model.bin", ignored) ||
                             fs::exists(folder_ + "/pytorch_model.bin.index.json", ignored);
        throw UserError(fmt::format("{}: holds neither {} nor {}.index.json{}", folder_, kSingle, kSingle,
                                    pickled ? "; pytorch_model.bin is not read: save the model again with "
                                              "save_pretrained(DIR, safe_serialization=True)"
                                            : ""));
    }
    throw_if_any(problems_, folder_ + ": the weights cannot be read");
}

void HuggingFaceFolder::open_index(const std::string& index) {
    std::string why;
    if (!inner_file(folder_, fs::path(index).filename(), why))
        throw UserError(fmt::format("{}: {}", index, why));
    JsonDocument json(index);
    const std::map<std::string, std::string> weight_map = json.text_map("weight_map");
    json.diagnostics().throw_if_any();
    std::set<std::string> names;
    for (const auto& [tensor, file] : weight_map) names.insert(file);
    files_.reserve(names.size());
    for (const std::string& name : names) open_file(name);
    if (!problems_.empty()) return;  // of a missing file every tensor would be missing
    for (const auto& [tensor, file] : weight_map) {
        const auto found = std::ranges::find(files_, folder_ + "/" + file, &SafetensorsFile::path);
        if (!found->find(tensor))
            problems_.push_back(fmt::format("{}: tensor {} should be in {}, which does not hold it", index,
                                            detail::shown_name(tensor), file));
    }
}

void HuggingFaceFolder::open_file(const std::string& name) {
    std::string why;
    const std::optional<std::string> path = inner_file(folder_, name, why);
    if (!path) {
        problems_.push_back(fmt::format("{}/{}: {}", folder_, name, why));
        return;
    }
    try {
        if (is_lfs_pointer(MappedFile(*path)))
            throw UserError(*path + ": is a pointer of Git LFS and not the file itself; run `git lfs pull`");
        files_.push_back(SafetensorsFile::open(*path));
    } catch (const std::exception& error) {
        problems_.emplace_back(error.what());
        return;
    }
    for (const SafetensorsEntry& entry : files_.back().entries()) {
        if (!tensors_.emplace(entry.name, &entry).second)
            problems_.push_back(
                fmt::format("{}: tensor {} is also in another file", *path, detail::shown_name(entry.name)));
    }
}

const SafetensorsEntry* HuggingFaceFolder::find(const std::string& name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : found->second;
}

std::vector<std::string> HuggingFaceFolder::names() const {
    std::vector<std::string> names;
    for (const auto& [name, entry] : tensors_) names.push_back(name);
    std::ranges::sort(names);
    return names;
}

}  // namespace moesaic
