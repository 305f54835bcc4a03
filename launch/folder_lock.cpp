#include "launch/folder_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

#include "runtime/base/error.h"
#include "runtime/base/log.h"

namespace moesaic {

namespace {

std::string this_host() {
    std::array<char, 256> host{};
    ::gethostname(host.data(), host.size() - 1);
    return host.data();
}

/// What the holder wrote: "123 on HOST"; empty while it has not.
std::string holder_of(int descriptor) {
    std::array<char, 300> text{};
    const ssize_t length = ::pread(descriptor, text.data(), text.size() - 1, 0);
    const std::string_view words(text.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
    return std::string(words.substr(0, words.find('\n')));
}

}  // namespace

FolderLock::FolderLock(const std::string& folder, std::string_view who, Patience patience) {
    using Steady = std::chrono::steady_clock;
    const std::filesystem::path path(folder);
    const std::string file = path.parent_path() / fmt::format(".{}.lock", path.filename().string());
    std::error_code error;
    if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
    // Without O_CLOEXEC: a run that outlives its study keeps the folder locked.
    descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT, 0644);
    if (descriptor_ < 0)
        throw UserError(
            fmt::format("{}: cannot be created: {}; choose another --out", folder, std::strerror(errno)));
    const std::string host = this_host();
    const auto start = Steady::now();
    for (bool told = false; ::flock(descriptor_, LOCK_EX | LOCK_NB) != 0;) {
        if (errno != EWOULDBLOCK && errno != EINTR) return;  // no locks here
        const std::string holder = holder_of(descriptor_);
        const bool near = holder.empty() || holder.ends_with(" on " + host);
        const std::string text = fmt::format("{}: {} still writes there (started by process {})", folder, who,
                                             holder.empty() ? "unknown" : holder);
        if (Steady::now() - start >= (near ? patience.here : patience.elsewhere)) {
            ::close(descriptor_);
            throw UserError(text + "; wait for it or end it, then start again, or choose another --out");
        }
        if (!told) log_info("{}; waiting for it to end", text);
        told = true;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    const std::string own = fmt::format("{} on {}\n", ::getpid(), host);
    if (::ftruncate(descriptor_, 0) == 0) (void)!::pwrite(descriptor_, own.data(), own.size(), 0);
}

FolderLock::~FolderLock() {
    ::close(descriptor_);
}

}  // namespace moesaic
