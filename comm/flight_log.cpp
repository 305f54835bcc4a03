#include "comm/flight_log.h"

#include <fmt/ranges.h>

#include <charconv>
#include <iterator>
#include <system_error>

#include "comm/communicator.h"
#include "runtime/base/error.h"

namespace moesaic {

namespace {

constexpr std::string_view kTitle = "Moesaic flight log 1";

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t end = std::min(text.find(separator, at), text.size());
        parts.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return parts;
}

/// One line's columns, taken one after the other.
class Columns {
  public:
    Columns(std::string_view line, std::string where) : parts_(split(line, '\t')), where_(std::move(where)) {}

    [[nodiscard]] std::string_view word() {
        if (next_ == parts_.size()) throw UserError(where_ + ": too few columns for a flight log");
        return parts_[next_++];
    }
    template <class Number>
    [[nodiscard]] Number number(int base = 10) {
        const std::string_view text = word();
        Number value{};
        std::from_chars_result read{};
        if constexpr (std::is_floating_point_v<Number>) {
            read = std::from_chars(text.begin(), text.end(), value);
        } else {
            read = std::from_chars(text.begin(), text.end(), value, base);
        }
        if (read.ec != std::errc() || read.ptr != text.end())
            throw UserError(fmt::format("{}: '{}' is not a number", where_, text));
        return value;
    }

  private:
    std::vector<std::string_view> parts_;
    std::string where_;
    std::size_t next_ = 0;
};

}  // namespace

std::string FlightRecord::text() const {
    return fmt::format("{} '{}'", verb, Label{operation, layer}.text());
}

std::string to_text(const FlightLog& log) {
    std::string text = fmt::format("{}\nrank\t{}\t{}\t{}\t{:.6f}\n", kTitle, log.rank, log.world_size,
                                   log.host, log.written);
    text += "# group\tname\tcollectives entered\tworld ranks\n";
    for (const FlightGroup& group : log.groups)
        text +=
            fmt::format("group\t{}\t{}\t{}\n", group.name, group.entered, fmt::join(group.world_ranks, " "));
    text +=
        "# record\tgroup\tsequence\tverb\toperation\tlayer\tstep\trows\tbytes per row\tshape\thistory\t"
        "began\tended\n";
    for (const FlightRecord& one : log.records) {
        text += fmt::format("record\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{:x}\t{:x}\t{:.6f}\t{:.6f}\n", one.group,
                            one.sequence, one.verb, one.operation, one.layer, one.step, one.rows,
                            one.row_bytes, one.shape, one.history, one.began, one.ended);
    }
    return text;
}

namespace {

FlightGroup read_group(Columns& columns) {
    FlightGroup group{
        .name = std::string(columns.word()), .world_ranks = {}, .entered = columns.number<i64>()};
    for (const std::string_view rank : split(columns.word(), ' '))
        group.world_ranks.push_back(Columns(rank, "world ranks").number<int>());
    return group;
}

FlightRecord read_record(Columns& columns) {
    FlightRecord record;
    record.group = columns.number<std::size_t>();
    record.sequence = columns.number<i64>();
    record.verb = columns.word();
    record.operation = columns.word();
    record.layer = columns.number<int>();
    record.step = columns.number<i64>();
    record.rows = columns.number<i64>();
    record.row_bytes = columns.number<i64>();
    record.shape = columns.number<u64>(16);
    record.history = columns.number<u64>(16);
    record.began = columns.number<double>();
    record.ended = columns.number<double>();
    return record;
}

}  // namespace

FlightLog read_flight_log(std::string_view text, const std::string& path) {
    const std::vector<std::string_view> lines = split(text, '\n');
    if (lines.front() != kTitle) throw UserError(fmt::format("{}: no flight log ('{}')", path, kTitle));
    FlightLog log;
    for (std::size_t line = 1; line < lines.size(); ++line) {
        if (lines[line].empty() || lines[line].front() == '#') continue;
        const std::string where = fmt::format("{}:{}", path, line + 1);
        Columns columns(lines[line], where);
        const std::string_view kind = columns.word();
        if (kind == "rank") {
            log.rank = columns.number<int>();
            log.world_size = columns.number<int>();
            log.host = columns.word();
            log.written = columns.number<double>();
        } else if (kind == "group") {
            log.groups.push_back(read_group(columns));
        } else if (kind == "record") {
            log.records.push_back(read_record(columns));
            if (log.records.back().group >= log.groups.size())
                throw UserError(fmt::format("{}: no group {}", where, log.records.back().group));
        } else {
            throw UserError(fmt::format("{}: '{}' is none of rank, group, record", where, kind));
        }
    }
    return log;
}

}  // namespace moesaic
