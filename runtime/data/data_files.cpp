// Listing a path of training data, judging formats by names.
#include "runtime/data/data_files.h"

#include <fmt/ranges.h>
#include <glob.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "runtime/base/error.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRemedy = "name a data file, or a folder with data files";

constexpr std::array<std::pair<DataFormat, std::string_view>, 5> kNames{{{DataFormat::text, "text"},
                                                                         {DataFormat::jsonl, "jsonl"},
                                                                         {DataFormat::bin, "bin"},
                                                                         {DataFormat::megatron, "megatron"},
                                                                         {DataFormat::npy, "npy"}}};

/// Files whose bytes nobody wants to train on unasked.
const std::set<std::string>& containers() {
    static const std::set<std::string> kEndings{".gz",  ".zst",     ".bz2",   ".xz",  ".zip", ".tar",
                                                ".tgz", ".7z",      ".arrow", ".h5",  ".pt",  ".pth",
                                                ".pkl", ".parquet", ".npz",   ".rar", ".lz4", ".hdf5"};
    return kEndings;
}

bool is_left_out(const std::string& file_name) {
    return (file_name.starts_with("README") && file_name.ends_with(".md")) || file_name.ends_with(".partial");
}

std::string without_ending(const std::string& path) {
    return path.substr(0, path.size() - fs::path(path).extension().string().size());
}

bool exists(const std::string& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

DataFile pair_of(DataFile file) {
    return {without_ending(file.name), without_ending(file.path), DataFormat::megatron};
}

/// What "auto" takes the file for. A `.bin` of a pair gives the pair.
DataFile judged(DataFile file) {
    const std::string ending = fs::path(file.path).extension().string();
    if (ending == ".idx") return pair_of(std::move(file));
    if (ending == ".bin") {
        if (exists(without_ending(file.path) + ".idx")) return pair_of(std::move(file));
        file.format = DataFormat::bin;
    } else if (ending == ".jsonl" || ending == ".ndjson") {
        file.format = DataFormat::jsonl;
    } else if (ending == ".npy") {
        file.format = DataFormat::npy;
    } else if (containers().contains(ending)) {
        throw UserError(
            fmt::format("{}: a '{}' file is not a format of training data; unpack or convert it, or set "
                        "task.data.format: text to train on its bytes",
                        file.path, ending));
    }
    return file;
}

DataFile taken_as(DataFile file, DataFormat format) {
    file.format = format;
    const std::string ending = fs::path(file.path).extension().string();
    return format == DataFormat::megatron && (ending == ".bin" || ending == ".idx") ? pair_of(std::move(file))
                                                                                    : file;
}

std::vector<std::string> endings_of(DataFormat format) {
    switch (format) {
        case DataFormat::text:
            return {};
        case DataFormat::jsonl:
            return {".jsonl", ".ndjson", ".json"};
        case DataFormat::bin:
            return {".bin"};
        case DataFormat::megatron:
            return {".idx"};
        case DataFormat::npy:
            return {".npy"};
    }
    return {};
}

std::vector<DataFile> list_folder(const fs::path& folder) {
    std::vector<DataFile> files;
    for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::recursive_directory_iterator();
         ++entry) {
        const std::string file_name = entry->path().filename().string();
        if (file_name.starts_with('.')) {
            entry.disable_recursion_pending();
        } else if (entry->is_regular_file() && !is_left_out(file_name)) {
            files.push_back({entry->path().lexically_relative(folder).generic_string(),
                             entry->path().string(), DataFormat::text});
        }
    }
    std::sort(files.begin(), files.end(),
              [](const DataFile& a, const DataFile& b) { return a.name < b.name; });
    return files;
}

/// The regular files that match a pattern of the shell.
std::vector<DataFile> list_matches(const std::string& pattern) {
    glob_t found{};
    std::vector<DataFile> files;
    if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) {
        for (std::size_t i = 0; i < found.gl_pathc; ++i) {
            const fs::path path = found.gl_pathv[i];
            std::error_code ignored;
            if (fs::is_regular_file(path, ignored) && !is_left_out(path.filename().string()))
                files.push_back({path.filename().string(), path.string(), DataFormat::text});
        }
    }
    ::globfree(&found);
    return files;
}

/// The files that have the format, or, for "auto", each with its own.
std::vector<DataFile> chosen_files(std::vector<DataFile> files, const std::string& path,
                                   std::string_view format) {
    std::vector<DataFile> taken;
    if (format == "auto") {
        for (DataFile& file : files) {
            file = judged(std::move(file));
            const bool known = std::any_of(taken.begin(), taken.end(),
                                           [&](const DataFile& other) { return other.path == file.path; });
            if (!known) taken.push_back(std::move(file));
        }
        return taken;
    }
    const DataFormat wanted = data_format_of(format);
    const std::vector<std::string> endings = endings_of(wanted);
    for (DataFile& file : files) {
        const std::string ending = fs::path(file.path).extension().string();
        if (!endings.empty() && std::find(endings.begin(), endings.end(), ending) == endings.end()) continue;
        taken.push_back(taken_as(std::move(file), wanted));
    }
    if (taken.empty()) {
        throw UserError(
            fmt::format("{}: holds no file of format {} ({}); name another folder, or "
                        "set task.data.format to what its files are",
                        path, format, fmt::join(endings, ", ")));
    }
    return taken;
}

[[noreturn]] void throw_missing(const std::string& path, const fs::file_status& status,
                                const std::error_code& failure) {
    if (status.type() == fs::file_type::none) {
        throw UserError(fmt::format("{}: cannot be reached ({}); {}", path, failure.message(), kRemedy));
    }
    std::error_code ignored;
    const fs::path folder = fs::current_path(ignored);
    const std::string where = fs::path(path).is_absolute() ? "" : fmt::format(" below {}", folder.string());
    throw UserError(fmt::format("{}: no such file or folder{}; {}", path, where, kRemedy));
}

}  // namespace

std::string_view name_of(DataFormat format) {
    for (const auto& [one, name] : kNames)
        if (one == format) return name;
    return "?";
}

DataFormat data_format_of(std::string_view name) {
    for (const auto& [format, one] : kNames)
        if (one == name) return format;
    throw UserError(
        fmt::format("format '{}': there is none of that name; use auto, text, jsonl, bin, "
                    "megatron or npy",
                    name));
}

std::vector<DataFile> list_data_files(const std::string& path, std::string_view format) {
    if (path.empty()) throw UserError(fmt::format("'': the path of the data is empty; {}", kRemedy));
    std::error_code failure;
    const fs::file_status status = fs::status(path, failure);
    const std::string name = fs::path(path).filename().string();
    if (!fs::exists(status)) {
        // As Megatron's users write it: what PREFIX.bin and PREFIX.idx have in common.
        const bool may_be_a_pair = format == "auto" || format == "megatron";
        if (may_be_a_pair && exists(path + ".idx")) return {{name, path, DataFormat::megatron}};
        if (may_be_a_pair && exists(path + ".bin"))
            throw UserError(
                fmt::format("{0}: there is {0}.bin, but no {0}.idx; Megatron's data are pairs, "
                            "other data want their whole name",
                            path));
        if (path.find_first_of("*?[") == std::string::npos) throw_missing(path, status, failure);
        std::vector<DataFile> matches = list_matches(path);
        if (matches.empty())
            throw UserError(fmt::format("{}: no file matches this pattern; {}", path, kRemedy));
        return chosen_files(std::move(matches), path, format);
    }
    try {
        if (fs::is_regular_file(status)) {
            if (fs::file_size(path) == 0) {
                throw UserError(fmt::format("{}: the file is empty; name a file with data", path));
            }
            const DataFile file{name, path, DataFormat::text};
            return {format == "auto" ? judged(file) : taken_as(file, data_format_of(format))};
        }
        if (!fs::is_directory(status)) {
            throw UserError(fmt::format("{}: neither a regular file nor a folder; {}", path, kRemedy));
        }
        std::vector<DataFile> files = list_folder(path);
        if (files.empty()) {
            throw UserError(fmt::format(
                "{}: the folder holds no data file (hidden files and README*.md do not count); {}", path,
                kRemedy));
        }
        return chosen_files(std::move(files), path, format);
    } catch (const fs::filesystem_error& error) {
        const std::string where = error.path1().empty() ? path : error.path1().string();
        throw UserError(fmt::format("{}: cannot be listed ({}); make every folder in it readable", where,
                                    error.code().message()));
    }
}

}  // namespace moesaic
