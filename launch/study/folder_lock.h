// One study at a time in a folder, runs that a killed one left behind included.
#pragma once

#include <chrono>
#include <string>

namespace moesaic {

/// Holds `path` locked (flock) while it lives, and beyond that while any process lives that was started
/// meanwhile: children inherit the descriptor. File systems without locks are taken as they are.
class FolderLock {
  public:
    /// Waits for as long as `patience` for others to end; then a UserError that names the folder and the
    /// process that took the lock.
    FolderLock(const std::string& path, const std::string& folder, std::chrono::milliseconds patience);
    FolderLock(const FolderLock&) = delete;
    FolderLock& operator=(const FolderLock&) = delete;
    ~FolderLock();

  private:
    int descriptor_ = -1;
};

}  // namespace moesaic
