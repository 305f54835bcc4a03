#include "runtime/checkpoint/checkpoint_folder.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <tuple>

#include "runtime/base/atomic_file.h"

namespace moesaic {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLatestName = "latest";
constexpr std::string_view kStepPrefix = "step-";

std::optional<i64> step_of(std::string_view folder_name) {
    if (!folder_name.starts_with(kStepPrefix)) return {};
    folder_name.remove_prefix(kStepPrefix.size());
    i64 step = 0;
    const char* end = folder_name.data() + folder_name.size();
    const auto parsed = std::from_chars(folder_name.data(), end, step);
    return parsed.ec == std::errc() && parsed.ptr == end && step >= 0 ? std::optional(step) : std::nullopt;
}

std::vector<CheckpointFolder> list_in(const std::string& folder) {
    std::vector<CheckpointFolder> found;
    std::error_code failure;
    for (fs::directory_iterator entry(folder, failure), end; !failure && entry != end;
         entry.increment(failure)) {
        const std::optional<i64> step = step_of(entry->path().filename().string());
        std::error_code ignored;
        if (!step || !entry->is_directory(ignored)) continue;
        found.push_back({*step, entry->path().string(), has_manifest(entry->path().string())});
    }
    std::ranges::sort(found, {}, [](const auto& one) { return std::tie(one.step, one.path); });
    return found;
}

std::optional<std::string> latest_in(const std::string& folder) {
    std::string name;
    std::getline(std::ifstream(fmt::format("{}/{}", folder, kLatestName)) >> std::ws, name);
    while (!name.empty() && std::isspace(static_cast<unsigned char>(name.back()))) name.pop_back();
    if (step_of(name) && has_manifest(folder + "/" + name)) return folder + "/" + name;
    const std::vector<CheckpointFolder> all = list_in(folder);
    const auto newest = std::find_if(all.rbegin(), all.rend(), [](const auto& one) { return one.complete; });
    return newest == all.rend() ? std::nullopt : std::optional(newest->path);
}

void check(const std::error_code& failure, const std::string& path, std::string_view action) {
    if (failure) throw Error(fmt::format("{}: cannot be {}: {}", path, action, failure.message()));
}

void remove_checkpoint(const std::string& path) {
    std::error_code failure;
    fs::remove(fmt::format("{}/{}", path, kManifestName), failure);
    check(failure, path, "removed");
    sync_directory(path);
    fs::remove_all(path, failure);
    check(failure, path, "removed");
}

}  // namespace

std::string checkpoints_folder(const std::string& run_folder) {
    return run_folder + "/checkpoints";
}

std::string prepare_checkpoint_folder(const std::string& run_folder, i64 step) {
    const std::string path = checkpoints_folder(run_folder) + "/" + step_folder_name(step);
    std::error_code failure;
    if (fs::exists(path, failure)) remove_checkpoint(path);
    fs::create_directories(path, failure);
    check(failure, path, "created");
    sync_directory(checkpoints_folder(run_folder));
    return path;
}

std::vector<CheckpointFolder> list_checkpoints(const std::string& run_folder) {
    return list_in(checkpoints_folder(run_folder));
}

void write_latest(const std::string& run_folder, i64 step) {
    const std::string folder = checkpoints_folder(run_folder);
    MOESAIC_ASSERT(has_manifest(folder + "/" + step_folder_name(step)), "step {} has no manifest", step);
    write_file_atomically(fmt::format("{}/{}", folder, kLatestName), step_folder_name(step) + "\n");
}

std::optional<std::string> find_latest(const std::string& run_folder) {
    return latest_in(checkpoints_folder(run_folder));
}

std::string resolve_checkpoint(const std::string& path) {
    std::string folder = path;
    while (folder.size() > 1 && folder.ends_with('/')) folder.pop_back();
    std::error_code ignored;
    if (!fs::exists(folder, ignored))
        throw UserError(
            fmt::format("{}: there is no such folder; name a run folder (with checkpoints/ in it) "
                        "or one of its checkpoints/step-... folders",
                        path));
    if (has_manifest(folder)) return folder;
    if (fs::is_directory(checkpoints_folder(folder), ignored)) {
        if (const auto latest = find_latest(folder)) return *latest;
        throw UserError(
            fmt::format("{}: this run has no complete checkpoint; let it train until one is "
                        "written (train.checkpoint_every), or start it anew without --resume",
                        path));
    }
    if (const auto latest = latest_in(folder)) return *latest;
    if (step_of(fs::path(folder).filename().string())) {
        const std::string run_folder = fs::path(folder).parent_path().parent_path().string();
        const auto latest = find_latest(run_folder.empty() ? "." : run_folder);
        throw UserError(
            fmt::format("{}: the checkpoint is incomplete: it has no {} (the run stopped while it "
                        "was written); {}",
                        path, kManifestName, latest ? "use " + *latest : "no complete one stands beside it"));
    }
    throw UserError(
        fmt::format("{}: is neither a checkpoint nor a run folder; name a run folder (with "
                    "checkpoints/ in it) or one of its checkpoints/step-... folders",
                    path));
}

std::vector<std::string> checkpoints_to_prune(const std::string& run_folder, i64 keep) {
    std::vector<std::string> goers;
    const std::optional<std::string> latest = find_latest(run_folder);
    if (keep <= 0 || !latest) return goers;
    const std::vector<CheckpointFolder> all = list_checkpoints(run_folder);
    const i64 last = step_of(fs::path(*latest).filename().string()).value_or(0);
    // Later ones are of a course that a return has left; they stay until the new one has a fallback.
    const auto is_of_course = [&](const CheckpointFolder& one) { return one.step <= last; };
    const auto good = std::ranges::count_if(
        all, [&](const CheckpointFolder& one) { return one.complete && is_of_course(one); });
    const bool has_fallback = good >= 2;
    i64 kept = 0;
    bool later_is_complete = false;
    for (auto one = all.rbegin(); one != all.rend(); ++one) {
        bool surplus = has_fallback && (one->complete || later_is_complete);
        if (is_of_course(*one)) surplus = one->complete ? kept++ >= keep : kept > 0;
        if (surplus && one->path != *latest) goers.push_back(one->path);
        later_is_complete = later_is_complete || one->complete;
    }
    return goers;
}

std::vector<std::string> prune_checkpoints(const std::string& run_folder, i64 keep) {
    const std::vector<std::string> goers = checkpoints_to_prune(run_folder, keep);
    for (const std::string& path : goers) remove_checkpoint(path);
    return goers;
}

}  // namespace moesaic
