// Listing a text source, reading one of its files.
#include "runtime/data/text_source.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <system_error>

#include "runtime/base/error.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRemedy = "name a text file, or a folder with text files";

bool is_hidden(const std::string& file_name) {
    return file_name.starts_with('.');
}

bool is_readme(const std::string& file_name) {
    return file_name.starts_with("README") && file_name.ends_with(".md");
}

std::vector<TextFile> list_folder(const fs::path& folder) {
    std::vector<TextFile> files;
    for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::recursive_directory_iterator();
         ++entry) {
        const std::string file_name = entry->path().filename().string();
        if (is_hidden(file_name)) {
            entry.disable_recursion_pending();
        } else if (entry->is_regular_file() && !is_readme(file_name)) {
            files.push_back(
                {entry->path().lexically_relative(folder).generic_string(), entry->path().string()});
        }
    }
    std::sort(files.begin(), files.end(),
              [](const TextFile& a, const TextFile& b) { return a.name < b.name; });
    return files;
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

std::vector<TextFile> list_text_files(const std::string& path) {
    if (path.empty()) throw UserError(fmt::format("'': the path of the text is empty; {}", kRemedy));
    std::error_code failure;
    const fs::file_status status = fs::status(path, failure);
    if (!fs::exists(status)) throw_missing(path, status, failure);
    try {
        if (fs::is_regular_file(status)) {
            if (fs::file_size(path) == 0) {
                throw UserError(fmt::format("{}: the file is empty; name a file with text", path));
            }
            return {{fs::path(path).filename().string(), path}};
        }
        if (!fs::is_directory(status)) {
            throw UserError(fmt::format("{}: neither a regular file nor a folder; {}", path, kRemedy));
        }
        std::vector<TextFile> files = list_folder(path);
        if (files.empty()) {
            throw UserError(fmt::format(
                "{}: the folder holds no text file (hidden files and README*.md do not count); {}", path,
                kRemedy));
        }
        return files;
    } catch (const fs::filesystem_error& error) {
        const std::string where = error.path1().empty() ? path : error.path1().string();
        throw UserError(fmt::format("{}: cannot be listed ({}); make every folder in it readable", where,
                                    error.code().message()));
    }
}

std::string read_text_file(const std::string& path) {
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    const auto fail = [&path](int code) {
        throw UserError(fmt::format("{}: cannot be read ({}); make it readable or take it out of the folder",
                                    path, std::generic_category().message(code)));
    };
    errno = 0;
    const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
    if (!file) fail(errno);
    std::string text;
    std::error_code ignored;
    const auto bytes = fs::file_size(path, ignored);
    if (!ignored) text.reserve(bytes);
    std::array<char, 1 << 16> block;
    while (const std::size_t got = std::fread(block.data(), 1, block.size(), file.get())) {
        text.append(block.data(), got);
    }
    if (std::ferror(file.get())) fail(errno);
    return text;
}

}  // namespace moesaic
