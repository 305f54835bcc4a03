#include "runtime/base/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

#include "runtime/base/disk_fault.h"
#include "runtime/base/error.h"

namespace moesaic {

namespace {

// Linux writes at most 2 GiB - 4 KiB at once.
constexpr std::size_t kMaximumWriteBytes = std::size_t{1} << 30;

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), partial_path_(path_ + ".partial") {
    descriptor_ = ::open(partial_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor_ < 0)
        throw Error(
            fmt::format("{}: cannot be created: {}", partial_path_, std::generic_category().message(errno)));
}

AtomicFile::~AtomicFile() {
    discard();
}

void AtomicFile::discard() noexcept {
    if (descriptor_ < 0) return;
    ::close(descriptor_);
    descriptor_ = -1;
    ::unlink(partial_path_.c_str());
}

void AtomicFile::fail(std::string_view action, int code) {
    discard();
    throw Error(fmt::format("{}: {} failed after {} bytes: {}; the partial file was removed", path_, action,
                            bytes_written_, std::generic_category().message(code)));
}

void AtomicFile::write(const void* data, std::size_t bytes) {
    MOESAIC_ASSERT(descriptor_ >= 0, "{} is already complete", path_);
    if (disk_fault().full) fail("writing", ENOSPC);
    const auto* next = static_cast<const std::byte*>(data);
    while (bytes > 0) {
        const ssize_t written = ::write(descriptor_, next, std::min(bytes, kMaximumWriteBytes));
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) fail("writing", errno);
        if (written == 0) fail("writing", ENOSPC);
        next += written;
        bytes -= static_cast<std::size_t>(written);
        bytes_written_ += written;
    }
}

void AtomicFile::rewrite(i64 offset, std::string_view text) {
    MOESAIC_ASSERT(descriptor_ >= 0 && offset >= 0 && offset + std::ssize(text) <= bytes_written_,
                   "{}: {} bytes at {} of {}", path_, text.size(), offset, bytes_written_);
    std::size_t done = 0;
    while (done < text.size()) {
        const ssize_t written = ::pwrite(descriptor_, text.data() + done, text.size() - done,
                                         static_cast<off_t>(offset) + static_cast<off_t>(done));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail("writing", written < 0 ? errno : ENOSPC);
        done += static_cast<std::size_t>(written);
    }
}

void AtomicFile::commit() {
    MOESAIC_ASSERT(descriptor_ >= 0, "{} is already complete", path_);
    if (disk_fault().seconds > 0)
        std::this_thread::sleep_for(std::chrono::duration<double>(disk_fault().seconds));
    if (::fsync(descriptor_) != 0) fail("bringing it to disk", errno);
    const int descriptor = std::exchange(descriptor_, -1);
    int failure = 0;  // some network file systems report a full disk only here
    if (::close(descriptor) != 0) failure = errno;
    if (failure == 0 && std::rename(partial_path_.c_str(), path_.c_str()) != 0) failure = errno;
    if (failure != 0) {
        ::unlink(partial_path_.c_str());
        throw Error(fmt::format("{}: cannot be completed: {}; the partial file was removed", path_,
                                std::generic_category().message(failure)));
    }
    sync_directory(std::filesystem::path(path_).parent_path().string());
}

void sync_directory(const std::string& folder) {
    const char* name = folder.empty() ? "." : folder.c_str();
    const int descriptor = ::open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;  // a folder may be writable and not readable
    const int failure = ::fsync(descriptor) != 0 ? errno : 0;
    ::close(descriptor);
    if (failure != 0 && failure != EINVAL && failure != EROFS && failure != ENOTSUP)
        throw Error(fmt::format("{}: bringing the folder to disk failed: {}", name,
                                std::generic_category().message(failure)));
}

void write_file_atomically(const std::string& path, std::string_view text) {
    AtomicFile file(path);
    file.write(text);
    file.commit();
}

}  // namespace moesaic
