// From a text to a pattern, and the files of rank matrices.
#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>

#include "comm/traffic/traffic.h"
#include "runtime/base/atomic_file.h"
#include "runtime/base/error.h"
#include "runtime/config/diagnostics.h"

namespace moesaic {

namespace {

std::string names_of_table() {
    std::string names;
    for (const TrafficKind& kind : traffic_table()) {
        names += names.empty() ? "" : ", ";
        names += kind.name;
        if (kind.takes_file) names += ":FILE";
        if (!kind.parameters.empty()) names += fmt::format(":{}", kind.parameters.front().name);
    }
    return names;
}

std::optional<double> number_of(std::string_view text) {
    double value = 0;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || rest != text.data() + text.size() || !std::isfinite(value)) return {};
    return value;
}

std::string range_text(const TrafficParameter& parameter) {
    return fmt::format("{} from {} to {}", parameter.integer ? "a whole number" : "a number",
                       parameter.lowest, parameter.highest);
}

/// A mistake in the parameter `text` of pattern `name`, or nothing.
std::string set_value(const TrafficParameter& parameter, std::string_view text, double& value) {
    const std::optional<double> given = number_of(text);
    if (given && *given >= parameter.lowest && *given <= parameter.highest &&
        !(parameter.integer && *given != std::floor(*given))) {
        value = *given;
        return "";
    }
    return fmt::format("{} is '{}'; {}", parameter.name, text, range_text(parameter));
}

const TrafficParameter kStatedRanks{"ranks", 1, 1 << 20, 1, true};

/// One piece between commas: the first parameter's value, or key=value.
std::string set_parameter(TrafficSpec& spec, std::string_view piece, bool first) {
    const TrafficKind& kind = *spec.kind;
    const auto equals = piece.find('=');
    const std::string_view key = equals == std::string_view::npos ? "" : piece.substr(0, equals);
    const std::string_view text = equals == std::string_view::npos ? piece : piece.substr(equals + 1);
    if (key == kStatedRanks.name && kind.shaped_by_ranks) {
        double ranks = 1;
        const std::string mistake = set_value(kStatedRanks, text, ranks);
        if (mistake.empty()) spec.ranks = static_cast<int>(ranks);
        return mistake;
    }
    for (std::size_t i = 0; i < kind.parameters.size(); ++i) {
        if (key.empty() ? first && i == 0 : key == kind.parameters[i].name)
            return set_value(kind.parameters[i], text, spec.values[i]);
    }
    std::string known;
    for (const TrafficParameter& parameter : kind.parameters)
        known += fmt::format("{}{}", known.empty() ? "" : ", ", parameter.name);
    if (kind.shaped_by_ranks) known += known.empty() ? "ranks" : ", ranks";
    return fmt::format("'{}' is no parameter of it; {}", piece, known.empty() ? "it takes none" : known);
}

}  // namespace

TrafficSpec parse_traffic(const std::string& text, std::vector<std::string>& mistakes) {
    const std::string_view all = text;
    const std::string_view name = all.substr(0, all.find(':'));
    TrafficSpec spec;
    std::vector<std::string> names;
    for (const TrafficKind& kind : traffic_table()) {
        names.emplace_back(kind.name);
        if (kind.name == name) spec.kind = &kind;
    }
    if (!spec.kind) {
        const std::string near = nearest_name(std::string(name), names);
        mistakes.push_back(fmt::format("traffic '{}' is not known; {}one of {}", text,
                                       near.empty() ? "" : fmt::format("did you mean '{}'? ", near),
                                       names_of_table()));
        return spec;
    }
    for (const TrafficParameter& parameter : spec.kind->parameters) spec.values.push_back(parameter.fallback);
    std::string_view rest = name.size() == all.size() ? "" : all.substr(name.size() + 1);
    if (spec.kind->takes_file) {
        const auto options = rest.rfind(",ranks=");
        spec.file = rest.substr(0, options);
        rest = options == std::string_view::npos ? "" : rest.substr(options + 1);
        if (spec.file.empty()) mistakes.push_back(fmt::format("traffic {}: no file; {}:FILE", name, name));
    }
    for (bool first = !spec.kind->takes_file; !rest.empty(); first = false) {
        const auto comma = rest.find(',');
        const std::string mistake = set_parameter(spec, rest.substr(0, comma), first);
        if (!mistake.empty()) mistakes.push_back(fmt::format("traffic {}: {}", name, mistake));
        rest = comma == std::string_view::npos ? "" : rest.substr(comma + 1);
    }
    return spec;
}

std::unique_ptr<TrafficPattern> make_traffic(const std::string& text, PatternShape shape) {
    std::vector<std::string> mistakes;
    const TrafficSpec spec = parse_traffic(text, mistakes);
    if (spec.ranks) shape.ranks = *spec.ranks;
    if (shape.top_k > shape.experts)
        mistakes.push_back(fmt::format("traffic {}: a token cannot visit {} of {} experts", text, shape.top_k,
                                       shape.experts));
    if (spec.kind && spec.kind->shaped_by_ranks && shape.experts % shape.ranks != 0) {
        mistakes.push_back(fmt::format("traffic {}: {} experts do not divide among {} ranks; a multiple",
                                       spec.kind->name, shape.experts, shape.ranks));
    }
    if (!mistakes.empty()) {
        std::string lines;
        for (const std::string& mistake : mistakes) lines += (lines.empty() ? "" : "\n") + mistake;
        throw UserError(lines);
    }
    return spec.kind->make(spec, shape);
}

RankMatrix read_rank_matrix(const std::string& file) {
    std::ifstream stream(file);
    if (!stream) throw UserError(file + ": cannot be read; a square matrix of bytes, one line a sender");
    RankMatrix matrix;
    std::size_t rows = 0, columns = 0;
    int number = 0;
    for (std::string line; std::getline(stream, line);) {
        ++number;
        std::istringstream words(line);
        std::size_t count = 0;
        for (std::string word; words >> word; ++count) {
            const std::optional<double> value = number_of(word);
            if (!value || *value < 0 || *value > 9e15)
                throw UserError(
                    fmt::format("{}:{}: '{}' is no number of bytes; 0 or more", file, number, word));
            matrix.amount.push_back(static_cast<i64>(*value));
        }
        if (count == 0) continue;
        if (rows++ == 0) columns = count;
        if (count != columns)
            throw UserError(
                fmt::format("{}:{}: {} numbers, where the first line has {}", file, number, count, columns));
    }
    if (rows == 0 || rows != columns)
        throw UserError(
            fmt::format("{}: {} lines of {} numbers; as many lines as numbers in each", file, rows, columns));
    matrix.ranks = static_cast<int>(rows);
    return matrix;
}

void write_rank_matrix(const std::string& file, const RankMatrix& bytes) {
    std::string text;
    for (int from = 0; from < bytes.ranks; ++from) {
        for (int to = 0; to < bytes.ranks; ++to)
            text += fmt::format("{}{}", to == 0 ? "" : " ", bytes.at(from, to));
        text += '\n';
    }
    write_file_atomically(file, text);
}

}  // namespace moesaic
