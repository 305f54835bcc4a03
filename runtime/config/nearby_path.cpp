#include "runtime/config/nearby_path.h"

#include <system_error>

namespace moesaic {

namespace {

namespace fs = std::filesystem;

/// A Megatron prefix leads to its index.
bool leads_somewhere(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored) || fs::exists(path.string() + ".idx", ignored);
}

}  // namespace

std::string nearby_path(const std::string& path, const std::filesystem::path& file) {
    std::error_code error;
    const fs::path from = fs::absolute(file, error);
    if (error || path.empty() || fs::path(path).is_absolute() || leads_somewhere(path)) return path;
    fs::path folder = from.parent_path();
    for (int level = 0; level < 3; ++level, folder = folder.parent_path()) {
        const fs::path found = (folder / path).lexically_normal();
        if (leads_somewhere(found)) return found.string();
    }
    return path;
}

void find_data(DataConfig& data, const std::filesystem::path& file) {
    data.path = nearby_path(data.path, file);
    if (data.tokenizer != "bytes" && data.tokenizer != "none")
        data.tokenizer = nearby_path(data.tokenizer, file);
    if (data.labels != "auto") data.labels = nearby_path(data.labels, file);
    for (SourceConfig& source : data.sources) source.path = nearby_path(source.path, file);
}

}  // namespace moesaic
