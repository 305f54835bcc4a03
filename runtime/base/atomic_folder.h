// A folder that appears under its name complete, or not at all.
#pragma once

#include <string>

namespace moesaic {

/// Fill `PATH.partial`, which path() names; commit() brings it to disk and renames it to PATH. Without commit
/// it is removed with all that it holds. A PATH that exists and is not an empty folder is a UserError, and so
/// is a PATH.partial that an interrupted program left.
class AtomicFolder {
  public:
    explicit AtomicFolder(const std::string& path);
    AtomicFolder(const AtomicFolder&) = delete;
    AtomicFolder& operator=(const AtomicFolder&) = delete;
    ~AtomicFolder();

    /// Where to write.
    [[nodiscard]] const std::string& path() const { return partial_path_; }
    void commit();

  private:
    std::string final_path_, partial_path_;
    bool open_ = false;
};

}  // namespace moesaic
