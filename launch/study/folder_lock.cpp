#include "launch/study/folder_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <thread>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

/// What the holder wrote: its process id.
std::string holder(int descriptor) {
    std::array<char, 32> text{};
    const ssize_t length = ::pread(descriptor, text.data(), text.size() - 1, 0);
    const std::string_view words(text.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
    return words.empty() ? "unknown" : std::string(words.substr(0, words.find('\n')));
}

}  // namespace

FolderLock::FolderLock(const std::string& path, const std::string& folder,
                       std::chrono::milliseconds patience) {
    std::error_code error;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
    // Without O_CLOEXEC: a run that outlives its study keeps the folder locked.
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT, 0644);
    if (descriptor_ < 0)
        throw UserError(
            fmt::format("{}: cannot be written: {}; choose another --out", path, std::strerror(errno)));
    const auto until = std::chrono::steady_clock::now() + patience;
    while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) return;  // no locks here
        if (std::chrono::steady_clock::now() >= until) {
            const std::string process = holder(descriptor_);
            ::close(descriptor_);
            throw UserError(
                fmt::format("{}: a study, or a run that one left behind, still writes there (started by "
                            "process {}); wait "
                            "for it or end it, then start again",
                            folder, process));
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    const std::string own = fmt::format("{}\n", ::getpid());
    if (::ftruncate(descriptor_, 0) == 0) (void)!::pwrite(descriptor_, own.data(), own.size(), 0);
}

FolderLock::~FolderLock() {
    ::close(descriptor_);
}

}  // namespace moesaic
