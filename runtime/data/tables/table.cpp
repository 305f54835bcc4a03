#include "runtime/data/tables/table.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <string_view>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

std::string format_of(const TableOptions& options) {
    if (options.format != "auto") return options.format;
    const std::filesystem::path path(options.path);
    const std::string ending = path.extension().string();
    if (ending == ".csv" || ending == ".tsv") return "csv";
    if (ending == ".npy") return "npy";
    if (path.filename().string().find("idx") != std::string::npos) return "idx";
    throw UserError(fmt::format("{}: the name does not tell the format; task.data.format: csv, npy or idx",
                                options.path));
}

}  // namespace

Table read_table(const TableOptions& options) {
    std::error_code error;
    if (!std::filesystem::is_regular_file(options.path, error))
        throw UserError(
            fmt::format("{}: is no file; task.data.path: a .csv, .npy or IDX file", options.path));
    const std::string format = format_of(options);
    Table table = format == "csv"   ? read_csv_table(options)
                  : format == "npy" ? read_npy_table(options)
                                    : read_idx_table(options);
    if (table.rows == 0 || table.columns == 0)
        throw UserError(fmt::format("{}: {} examples of {} features; at least one of each", options.path,
                                    table.rows, table.columns));
    if (options.classes && table.class_names.size() < 2)
        throw UserError(
            fmt::format("{}: all examples are of one class, '{}'; at least two, or task.kind: "
                        "regression",
                        options.path, table.class_names.at(0)));
    return table;
}

namespace {

std::optional<double> finite_number(std::string_view text) {
    if (text.starts_with('+')) text.remove_prefix(1);
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return {};
    return value;
}

}  // namespace

namespace detail {

void number_classes(const std::vector<std::string>& labels, Table& table) {
    std::map<std::string, i64> numbers;
    for (const std::string& label : labels) numbers.emplace(label, 0);
    std::map<std::string, double> values;
    std::map<double, std::string> shortest;
    for (const auto& [label, unused] : numbers) {
        const std::optional<double> value = finite_number(label);
        if (!value) continue;
        values[label] = *value;
        std::string& name = shortest.try_emplace(*value, label).first->second;
        if (label.size() < name.size()) name = label;
    }
    for (const auto& [label, unused] : numbers) {
        if (!values.contains(label) || shortest[values[label]] == label) table.class_names.push_back(label);
    }
    if (values.size() == numbers.size()) {
        std::stable_sort(table.class_names.begin(), table.class_names.end(),
                         [&](const std::string& a, const std::string& b) { return values[a] < values[b]; });
    }
    for (std::size_t i = 0; i < table.class_names.size(); ++i)
        numbers[table.class_names[i]] = static_cast<i64>(i);
    for (const auto& [label, value] : values) numbers[label] = numbers[shortest[value]];
    table.targets.reserve(labels.size());
    for (const std::string& label : labels) table.targets.push_back(static_cast<double>(numbers[label]));
}

}  // namespace detail

}  // namespace moesaic
