#include "runtime/metrics/truncate.h"

#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "runtime/base/atomic_file.h"
#include "runtime/base/mapped_file.h"

namespace moesaic {

namespace {

std::optional<i64> step_of_json(std::string_view line) {
    const auto record = nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
    if (!record.is_object()) return {};
    const auto step = record.find("step");
    if (step == record.end() || !step->is_number_integer()) return {};
    // That the run went back is true of it whatever it does the second time.
    const nlohmann::json none;
    if (record.value("event", none) == "alarm" && record.value("action", none) == "rollback") return {};
    return step->get<i64>();
}

std::optional<i64> step_of_csv(std::string_view line) {
    i64 step = 0;
    const auto parsed = std::from_chars(line.data(), line.data() + line.size(), step);
    return parsed.ec == std::errc() ? std::optional(step) : std::nullopt;  // none: the header
}

void truncate(const std::string& path, i64 last, std::optional<i64> (*step_of)(std::string_view)) {
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return;
    std::string kept;
    {
        const MappedFile file(path);
        std::string_view rest(reinterpret_cast<const char*>(file.data()), file.size());
        for (std::size_t end; (end = rest.find('\n')) != std::string_view::npos;
             rest.remove_prefix(end + 1)) {
            const std::optional<i64> step = step_of(rest.substr(0, end));
            if (!step || *step <= last) kept += rest.substr(0, end + 1);
        }
        if (kept.size() == file.size()) return;
    }
    write_file_atomically(path, kept);
}

}  // namespace

void truncate_metrics_after(const std::string& folder, i64 step) {
    truncate(folder + "/metrics.jsonl", step, step_of_json);
    truncate(folder + "/metrics.csv", step, step_of_csv);
}

}  // namespace moesaic
