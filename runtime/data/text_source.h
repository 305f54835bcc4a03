// Finds the text files that a path names.
#pragma once

#include <string>
#include <vector>

namespace moesaic {

/// One file of a text source.
struct TextFile {
    std::string
        name;  ///< the path below the source's folder, with '/'; the file name where the source is a file
    std::string path;  ///< what opens it
};

/// The regular files that `path` names: the file itself, or every file below the folder in byte order of the
/// relative paths, hidden files and folders and `README*.md` left out. Links to files count as files; links
/// to folders below `path` are not followed. Never returns an empty list.
/// Throws UserError "path: what is wrong; what would be right" for a missing path, an empty single file, a
/// folder without files and a folder that cannot be listed.
[[nodiscard]] std::vector<TextFile> list_text_files(const std::string& path);

/// All bytes of a file, unchanged. Throws UserError where it cannot be opened or read.
[[nodiscard]] std::string read_text_file(const std::string& path);

}  // namespace moesaic
