// CSV with or without header: numbers, classes, and dates as places on two circles.
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <numbers>
#include <optional>
#include <string_view>

#include "runtime/base/error.h"
#include "runtime/data/tables/table.h"

namespace moesaic {

namespace {

constexpr int kMostMistakes = 20;

struct Line {
    i64 number = 0;  // in the file, from 1
    std::vector<std::string> fields;
};

std::string_view trimmed(std::string_view text) {
    const auto first = text.find_first_not_of(" \t\r");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

/// RFC 4180 within one line: "" is a quote in a quoted field.
std::vector<std::string> split(std::string_view line, char separator) {
    std::vector<std::string> fields(1);
    bool quoted = false;
    for (std::size_t i = 0; i < line.size(); ++i) {
        const char c = line[i];
        if (c == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"') {
            fields.back() += '"';
            ++i;
        } else if (c == '"') {
            quoted = !quoted;
        } else if (c == separator && !quoted) {
            fields.emplace_back();
        } else {
            fields.back() += c;
        }
    }
    for (std::string& field : fields) field = std::string(trimmed(field));
    return fields;
}

std::optional<double> number_of(std::string_view text) {
    if (text.starts_with('+')) text.remove_prefix(1);
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || text.empty()) return {};
    return value;
}

/// "YYYY-MM-DD", alone or with "Thh:mm" or " hh:mm" and more behind: place in the year and in the day, in [0,
/// 1).
std::optional<std::pair<double, double>> date_of(std::string_view text) {
    const auto part = [&](std::size_t at, std::size_t count) -> std::optional<int> {
        int value = 0;
        if (text.size() < at + count) return {};
        const auto [end, error] = std::from_chars(text.data() + at, text.data() + at + count, value);
        if (error != std::errc() || end != text.data() + at + count) return {};
        return value;
    };
    const auto year = part(0, 4), month = part(5, 2), day = part(8, 2);
    if (!year || !month || !day || text[4] != '-' || text[7] != '-') return {};
    if (*month < 1 || *month > 12 || *day < 1 || *day > 31) return {};
    static constexpr int kDaysBefore[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    double of_day = 0;
    if (text.size() > 10) {
        const auto hour = part(11, 2), minute = part(14, 2);
        if (!hour || !minute || (text[10] != 'T' && text[10] != ' ') || text[13] != ':') return {};
        of_day = (*hour + *minute / 60.0) / 24;
    }
    const bool leap = (*year % 4 == 0 && *year % 100 != 0) || *year % 400 == 0;
    const int before = kDaysBefore[*month - 1] + (leap && *month > 2 ? 1 : 0);
    return std::pair((before + *day - 1 + of_day) / (leap ? 366 : 365), of_day);
}

std::vector<Line> read_lines(const TableOptions& options) {
    const char separator = options.path.ends_with(".tsv") ? '\t' : ',';
    std::ifstream stream(options.path, std::ios::binary);
    std::vector<Line> lines;
    i64 number = 0;
    for (std::string text; std::getline(stream, text);) {
        ++number;
        if (number == 1 && text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);  // byte order mark
        if (!trimmed(text).empty()) lines.push_back({number, split(trimmed(text), separator)});
    }
    if (lines.empty()) throw UserError(fmt::format("{}: holds no examples", options.path));
    return lines;
}

/// The lines of a file as columns with names, and the mistakes found so far.
class CsvColumns {
  public:
    explicit CsvColumns(const TableOptions& options) : path_(options.path), lines_(read_lines(options)) {
        const std::vector<std::string>& first = lines_.front().fields;
        has_header_ = !holds_values();
        for (std::size_t i = 0; i < first.size(); ++i)
            names_.push_back(has_header_ ? first[i] : fmt::format("{}", i + 1));
        if (has_header_) lines_.erase(lines_.begin());
        for (const Line& line : lines_) {
            if (line.fields.size() != names_.size())
                complain(line, fmt::format("{} fields, where the first line has {}", line.fields.size(),
                                           names_.size()));
        }
        throw_if_any();
    }

    [[nodiscard]] std::size_t column(const std::string& name, const char* key) const {
        if (name == "last") return names_.size() - 1;
        if (const auto found = std::find(names_.begin(), names_.end(), name); found != names_.end())
            return static_cast<std::size_t>(found - names_.begin());
        const std::optional<double> number = number_of(name);
        if (number && *number >= 1 && *number <= static_cast<double>(names_.size()) &&
            *number == std::floor(*number))
            return static_cast<std::size_t>(*number) - 1;
        throw UserError(fmt::format("{}: there is no column '{}'; {}: one of {}", path_, name, key,
                                    fmt::join(names_, ", ")));
    }
    void complain(const Line& line, const std::string& text) {
        if (++mistakes_ <= kMostMistakes)
            text_ += fmt::format("{}{}:{}: {}", text_.empty() ? "" : "\n", path_, line.number, text);
    }
    void throw_if_any() const {
        if (mistakes_ == 0) return;
        const std::string more =
            mistakes_ > kMostMistakes ? fmt::format("\n... and {} more", mistakes_ - kMostMistakes) : "";
        throw UserError(text_ + more + "; mend or remove these lines");
    }
    /// A finite number; complains where there is none.
    [[nodiscard]] double number(const Line& line, std::size_t column) {
        const std::optional<double> value = number_of(line.fields[column]);
        if (value && std::isfinite(*value)) return *value;
        complain(line, fmt::format("column '{}' is '{}', no number", names_[column],
                                   line.fields[column].substr(0, 60)));
        return 0;
    }
    [[nodiscard]] const std::vector<Line>& lines() const { return lines_; }
    [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
    [[nodiscard]] bool has_header() const { return has_header_; }

  private:
    /// Whether a field of the first line is a number, or a date above another date (years may be names).
    [[nodiscard]] bool holds_values() const {
        const std::vector<std::string>& first = lines_.front().fields;
        for (std::size_t i = 0; i < first.size(); ++i) {
            if (number_of(first[i])) return true;
            const bool below = lines_.size() < 2 ||
                               (i < lines_[1].fields.size() && date_of(lines_[1].fields[i]).has_value());
            if (date_of(first[i]) && below) return true;
        }
        return false;
    }

    std::string path_;
    std::vector<Line> lines_;
    std::vector<std::string> names_;
    bool has_header_ = false;
    int mistakes_ = 0;
    std::string text_;
};

std::vector<std::size_t> feature_columns(const TableOptions& options, const CsvColumns& csv,
                                         std::size_t target) {
    std::vector<std::size_t> columns;
    if (options.features == "all") {
        for (std::size_t i = 0; i < csv.names().size(); ++i)
            if (i != target) columns.push_back(i);
        return columns;
    }
    for (const std::string& name : split(options.features, ',')) {
        columns.push_back(csv.column(name, "task.data.features"));
        if (columns.back() == target)
            throw UserError(
                fmt::format("{}: column '{}' is the target and a feature; task.data.features: "
                            "leave it out",
                            options.path, name));
    }
    return columns;
}

/// Appends what `column` gives to every row of `rows`.
void add_features(CsvColumns& csv, std::size_t column, Table& table, std::vector<std::vector<float>>& rows) {
    const std::string& name = csv.names()[column];
    if (!csv.lines().empty() && date_of(csv.lines()[0].fields[column])) {
        for (const char* part : {"year sin", "year cos", "day sin", "day cos"})
            table.feature_names.push_back(fmt::format("{} ({})", name, part));
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const auto date = date_of(csv.lines()[i].fields[column]);
            if (!date) csv.complain(csv.lines()[i], fmt::format("column '{}' is no date", name));
            const auto [year, day] = date.value_or(std::pair(0.0, 0.0));
            for (const double place : {year, day}) {
                rows[i].push_back(static_cast<float>(std::sin(2 * std::numbers::pi * place)));
                rows[i].push_back(static_cast<float>(std::cos(2 * std::numbers::pi * place)));
            }
        }
        return;
    }
    table.feature_names.push_back(name);
    for (std::size_t i = 0; i < rows.size(); ++i)
        rows[i].push_back(static_cast<float>(csv.number(csv.lines()[i], column)));
}

}  // namespace

Table read_csv_table(const TableOptions& options) {
    CsvColumns csv(options);
    const std::size_t target = csv.column(options.target, "task.data.target");
    Table table;
    table.rows = std::ssize(csv.lines());
    table.target_name = csv.names()[target];
    table.layout = csv.has_header() ? "CSV with header" : "CSV without header";
    std::vector<std::vector<float>> rows(csv.lines().size());
    for (const std::size_t column : feature_columns(options, csv, target))
        add_features(csv, column, table, rows);
    table.columns = std::ssize(table.feature_names);
    for (const std::vector<float>& row : rows)
        table.features.insert(table.features.end(), row.begin(), row.end());
    if (options.classes) {
        std::vector<std::string> labels;
        for (const Line& line : csv.lines()) {
            labels.push_back(line.fields[target]);
            if (labels.back().empty()) csv.complain(line, "has no class");
        }
        detail::number_classes(labels, table);
    } else {
        for (const Line& line : csv.lines()) table.targets.push_back(csv.number(line, target));
    }
    csv.throw_if_any();
    return table;
}

}  // namespace moesaic
