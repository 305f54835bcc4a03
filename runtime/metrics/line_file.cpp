#include "runtime/metrics/line_file.h"

#include <fcntl.h>
#include <unistd.h>

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

LineFile::LineFile(std::string path, bool keep) : path_(std::move(path)) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | (keep ? 0 : O_TRUNC), 0666);
    if (descriptor_ < 0) fail(path_, "opening", errno);
    if (keep) cut_torn_line();
}

LineFile::~LineFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void LineFile::cut_torn_line() {
    bytes_ = ::lseek(descriptor_, 0, SEEK_END);
    const i64 found = bytes_;
    char last = 0;
    while (bytes_ > 0 && ::pread(descriptor_, &last, 1, bytes_ - 1) == 1 && last != '\n') --bytes_;
    if (bytes_ < 0) bytes_ = 0;  // a pipe or device has no end to look at
    if (bytes_ < found && ::ftruncate(descriptor_, bytes_) != 0) fail(path_, "cutting a torn line", errno);
}

void LineFile::append(std::string line) {
    line += '\n';
    std::string_view rest = line;
    while (!rest.empty()) {
        const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail(path_, "writing", written < 0 ? errno : ENOSPC);
        rest.remove_prefix(static_cast<std::size_t>(written));
        bytes_ += written;
    }
}

void LineFile::sync() {
    if (::fdatasync(descriptor_) != 0 && errno != EINVAL && errno != EROFS)
        fail(path_, "bringing to disk", errno);
}

}  // namespace moesaic
