#include "runtime/base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

std::string reason(int code) {
    return std::generic_category().message(code);
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
    struct stat facts {};
    if (::stat(path.c_str(), &facts) != 0)
        throw UserError(fmt::format("{}: cannot be opened: {}", path, reason(errno)));
    if (!S_ISREG(facts.st_mode)) throw UserError(fmt::format("{}: is not a regular file", path));
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) throw UserError(fmt::format("{}: cannot be opened: {}", path, reason(errno)));
    if (::fstat(descriptor, &facts) != 0) facts.st_size = 0;
    size_ = static_cast<std::size_t>(facts.st_size);
    void* mapping = nullptr;
    int failure = 0;
    if (size_ > 0) {
        mapping = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (mapping == MAP_FAILED) failure = errno;
    }
    ::close(descriptor);
    if (failure != 0) throw Error(fmt::format("{}: cannot be mapped into memory: {}", path, reason(failure)));
    data_ = static_cast<const std::byte*>(mapping);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

MappedFile::~MappedFile() {
    if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace moesaic
