// Finds the files that a path of training data names, and what format each of them has.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

enum class DataFormat : std::uint8_t {
    text,      ///< bytes; one file is one document
    jsonl,     ///< a JSON object a line, one of whose members is the text of a document
    bin,       ///< token ids: with llm.c's header, else as nanoGPT writes them
    megatron,  ///< token ids in PREFIX.bin, sequences and documents in PREFIX.idx
    npy,       ///< token ids in an array of NumPy
};
/// "text", "jsonl", ...: the word for it in the configuration.
[[nodiscard]] std::string_view name_of(DataFormat format);
/// Its inverse; throws UserError for another word.
[[nodiscard]] DataFormat data_format_of(std::string_view name);

/// One file (Megatron: one pair) of training data.
struct DataFile {
    /// The path below the source's folder, with '/'; the file name where the source is a file. A pair has no
    /// extension.
    std::string name;
    std::string path;  ///< what opens it; of a pair the prefix, without extension
    DataFormat format = DataFormat::text;
};

/// The files that `path` names: the file itself, the Megatron pair with that prefix, the files that match
/// where it is a pattern of the shell (`shards/a_*.bin`), or every file below the folder in byte order of the
/// relative paths; hidden files and folders, `README*.md` and `*.partial` left out. Links to files count as
/// files; links to folders below `path` are not followed. Never returns an empty list.
///
/// `format` is "auto" or a format's word. "auto" judges every file by itself: `.jsonl` and `.ndjson` are
/// jsonl,
/// `.npy` is npy, `.idx` and a `.bin` that has one beside it are megatron, any other `.bin` is bin, and
/// everything else is text, but for endings of archives and other containers, which are refused. A named
/// format takes a single file whatever it is called, and of a folder the files with its ending (text: every
/// file; jsonl: also `.json`).
///
/// Throws UserError "path: what is wrong; what would be right" for a missing path, an empty single file, a
/// folder without files and a folder that cannot be listed.
[[nodiscard]] std::vector<DataFile> list_data_files(const std::string& path,
                                                    std::string_view format = "auto");

}  // namespace moesaic
