#include "runtime/metrics/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

[[noreturn]] void fail(const std::string& path, std::string_view action, int code) {
    throw Error(fmt::format("{}: {} failed: {}", path, action, std::generic_category().message(code)));
}

}  // namespace

AppendFile::AppendFile(std::string path, bool keep) : path_(std::move(path)) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | (keep ? 0 : O_TRUNC), 0666);
    if (descriptor_ < 0) fail(path_, "opening", errno);
    if (keep) bytes_ = std::max<i64>(::lseek(descriptor_, 0, SEEK_END), 0);  // a pipe has no end
}

AppendFile::~AppendFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void AppendFile::cut_torn_line() {
    const i64 found = bytes_;
    char last = 0;
    while (bytes_ > 0 && ::pread(descriptor_, &last, 1, bytes_ - 1) == 1 && last != '\n') --bytes_;
    if (bytes_ < found && ::ftruncate(descriptor_, bytes_) != 0) fail(path_, "cutting a torn line", errno);
}

void AppendFile::append_bytes(std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail(path_, "writing", written < 0 ? errno : ENOSPC);
        bytes.remove_prefix(static_cast<std::size_t>(written));
        bytes_ += written;
    }
}

void AppendFile::sync() {
    if (::fdatasync(descriptor_) != 0 && errno != EINVAL && errno != EROFS)
        fail(path_, "bringing to disk", errno);
}

}  // namespace moesaic
