#include "runtime/base/atomic_folder.h"

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "runtime/base/atomic_file.h"
#include "runtime/base/error.h"

namespace moesaic {

namespace fs = std::filesystem;

AtomicFolder::AtomicFolder(const std::string& path) {
    fs::path target = fs::path(path).lexically_normal();
    if (!target.has_filename()) target = target.parent_path();  // "DIR/"
    final_path_ = target.string();
    if (path.empty() || !target.has_filename() || target.filename() == "." || target.filename() == "..")
        throw UserError(fmt::format("'{}': is no name for a new folder", path));
    std::error_code ignored, failure;
    if (fs::exists(fs::symlink_status(target, ignored)) &&
        !(fs::is_directory(target, ignored) && fs::is_empty(target, ignored)))
        throw UserError(fmt::format("{}: exists already; name a new folder, or remove this one", path));
    partial_path_ = final_path_ + ".partial";
    if (target.has_parent_path()) fs::create_directories(target.parent_path(), failure);
    const bool created = !failure && fs::create_directory(partial_path_, failure);
    if (failure) throw UserError(fmt::format("{}: cannot be created: {}", partial_path_, failure.message()));
    if (!created)
        throw UserError(fmt::format(
            "{}: exists: another program is writing it, or was interrupted; remove it and try again",
            partial_path_));
    open_ = true;
}

AtomicFolder::~AtomicFolder() {
    std::error_code ignored;
    if (open_) fs::remove_all(partial_path_, ignored);
}

void AtomicFolder::commit() {
    MOESAIC_ASSERT(open_, "{} is already complete", final_path_);
    sync_directory(partial_path_);
    // rename(2) replaces an empty folder; one that was filled in the meantime stays.
    if (std::rename(partial_path_.c_str(), final_path_.c_str()) != 0)
        throw Error(fmt::format("{}: cannot be completed: {}; the partial folder was removed", final_path_,
                                std::generic_category().message(errno)));
    open_ = false;
    sync_directory(fs::path(final_path_).parent_path().string());
}

}  // namespace moesaic
