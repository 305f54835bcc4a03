// One writer at a time in a folder: runs and studies, those that a killed one left behind included.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace moesaic {

/// Holds OUT/.NAME.lock, beside the folder OUT/NAME, locked (flock) while it lives, and beyond that while any
/// process lives that was started meanwhile: children inherit the descriptor. The kernel releases it with the
/// last of them, however that ends; the file stays. File systems without locks are taken as they are.
class FolderLock {
  public:
    /// How long to wait for others to end.
    struct Patience {
        std::chrono::milliseconds here{0};
        /// Where the holder is on another host, which may be dead: a file server takes its locks back only
        /// when the lease is over (NFS: 90 s).
        std::chrono::milliseconds elsewhere{0};
    };

    /// Waits, saying so, for as long as `patience`; then a UserError that names the folder, `who` may hold
    /// it, and the process and host that took the lock.
    FolderLock(const std::string& folder, std::string_view who, Patience patience);
    FolderLock(const FolderLock&) = delete;
    FolderLock& operator=(const FolderLock&) = delete;
    ~FolderLock();

  private:
    int descriptor_ = -1;
};

}  // namespace moesaic
