#include "runtime/metrics/console_sink.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <utility>

#include "runtime/metrics/explain.h"

namespace moesaic {

namespace detail {

std::string duration_text(double seconds) {
    if (!(seconds >= 0) || seconds > 1e9) return "?";
    const i64 whole = std::llround(seconds);
    if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
    if (whole < 86400) return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
    return fmt::format("{}d{:02}h", whole / 86400, whole / 3600 % 24);
}

std::string compact_text(double number) {
    static constexpr std::array<const char*, 6> kUnits{"", "k", "M", "G", "T", "P"};
    std::size_t unit = 0;
    while (std::abs(number) >= 999.5 && unit + 1 < kUnits.size()) {
        number /= 1000;
        ++unit;
    }
    const int decimals = unit == 0 || std::abs(number) >= 99.95 ? 0 : std::abs(number) >= 9.995 ? 1 : 2;
    return fmt::format("{:.{}f}{}", number, decimals, kUnits[unit]);
}

std::string bytes_text(double bytes) {
    static constexpr std::array<const char*, 5> kUnits{"bytes", "KiB", "MiB", "GiB", "TiB"};
    std::size_t unit = 0;
    while (bytes >= 1023.95 && unit + 1 < kUnits.size()) {
        bytes /= 1024;
        ++unit;
    }
    return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, kUnits[unit]);
}

}  // namespace detail

namespace {

template <class T>
void add(std::string& line, fmt::format_string<T&> format, std::optional<T> value) {
    if (value) line += fmt::format(format, *value);
}

std::optional<double> share(std::optional<double> part, std::optional<double> whole, double scale) {
    if (!part || (whole && !(*whole > 0))) return {};
    return scale * *part / whole.value_or(1);
}

std::string bounds_text(const std::map<std::string, BoundResult>& bounds) {
    std::string text;
    for (const auto& [name, bound] : bounds) {
        if (is_certificate(name) || !speaks_of_the_model(bound)) continue;
        text += text.empty() ? "" : ", ";
        text += fmt::format("{} {:.3g}", name, bound.value);
        if (bound.vacuous) text += " (vacuous)";
    }
    return text;
}

/// "dead_experts (layers 0, 3)  entropy (layer 3)"; empty where nothing is raised.
std::string alarms_text(const std::vector<ExpertsRecord>& layers) {
    std::map<std::string, std::vector<i64>> where;
    for (const ExpertsRecord& layer : layers) {
        for (const std::string& kind : layer.alarms) where[kind].push_back(layer.layer);
    }
    std::string text;
    for (const auto& [kind, numbers] : where)
        text += fmt::format("{}{} (layer{} {})", text.empty() ? "" : "  ", kind,
                            numbers.size() == 1 ? "" : "s", fmt::join(numbers, ", "));
    return text;
}

std::string cell(std::optional<double> value, int decimals, double scale = 1, const char* unit = "") {
    return value ? fmt::format("{:.{}f}{}", scale * *value, decimals, unit) : "-";
}

constexpr const char* kHealthRow = "  {:>5}  {:>8}  {:>9}  {:>8}  {:>4}  {:>14}  {:>12}  {:>7}  {:>7}  {}";

std::string health_row(const ExpertsRecord& layer, std::optional<double> changed) {
    return fmt::format(fmt::runtime(kHealthRow), layer.layer, cell(layer.max_over_mean, 2),
                       cell(layer.variation, 2), cell(layer.evenness, 3), layer.dead.value_or(0),
                       cell(layer.router_entropy, 3), cell(layer.first_weight_mean, 3),
                       cell(layer.dropped_fraction, 1, 100, "%"), cell(changed, 1, 100, "%"),
                       layer.alarms.empty() ? "-" : fmt::format("{}", fmt::join(layer.alarms, ", ")));
}

}  // namespace

ConsoleSink::ConsoleSink(const SinkOptions& options) : options_(options) {
    if (!options_.seconds)
        options_.seconds = [] {
            return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
        };
    start_seconds_ = options_.seconds();
}

// A console that went away must not end a run: the files have the numbers, so a failure here is ignored.
void ConsoleSink::print(std::string line) {
    line += '\n';
    std::fwrite(line.data(), 1, line.size(), options_.console);
    std::fflush(options_.console);
}

std::string ConsoleSink::progress(i64 step) {
    if (!first_step_) {
        first_step_ = step;
        start_seconds_ = options_.seconds();
    }
    const std::string total = fmt::format("{}", options_.steps);
    std::string text = fmt::format("{:>{}}/{}", step, total.size(), total);
    if (options_.steps <= 0) return text;
    text += fmt::format("  {:>3}%", 100 * step / options_.steps);
    const double elapsed = options_.seconds() - start_seconds_;
    const i64 done = step - *first_step_;
    const i64 left = std::max<i64>(options_.steps - step, 0);
    if (done > 0)
        text += fmt::format("  eta {:>5}", detail::duration_text(elapsed / static_cast<double>(done) *
                                                                 static_cast<double>(left)));
    else
        text += "  eta     -";
    return text;
}

void ConsoleSink::write(const RunRecord& record) {
    start_seconds_ = options_.seconds();
    if (!options_.resume) first_step_ = 0;
    const auto ranks = [](i64 count) { return fmt::format("{} rank{}", count, count == 1 ? "" : "s"); };
    const std::string slices =
        record.expert_tensor > 1 ? fmt::format(" x expert tensor {}", record.expert_tensor) : "";
    print(fmt::format("Moesaic {} ({})  {} (expert parallel {}{} x data parallel {})  {} on {}",
                      record.version, record.commit, ranks(record.world_size), record.expert_parallel, slices,
                      record.data_parallel, record.device, record.host));
    print(fmt::format("{}{} parameters, {} of them active per {}  {} steps",
                      options_.name.empty() ? "" : options_.name + ": ",
                      detail::compact_text(static_cast<double>(record.parameters)),
                      detail::compact_text(static_cast<double>(record.active_parameters)),
                      options_.row_name == "tok" ? "token" : "example", options_.steps));
    if (!record.balance.empty()) print("balance: " + record.balance);
    if (!record.capacity.empty()) print("capacity: " + record.capacity);
    if (!record.unit_reason.empty())
        print(
            fmt::format("unit of certificates and intervals: the {} ({})", record.unit, record.unit_reason));
}

void ConsoleSink::write(const StepRecord& record) {
    std::string line = "step " + progress(record.step);
    line += fmt::format("  loss {:>6.3f}", record.loss);
    add(line, "  held-out {:>6.3f}", evaluation_.heldout_loss);
    add(line, "  gap {:>6.3f}", evaluation_.gap);
    if (const auto fresh = record.bounds.find("prequential"); fresh != record.bounds.end())
        line += fmt::format("  error <= {:.3f}", fresh->second.value);
    if (record.tokens_per_s)
        line += fmt::format("  {:>5} {}/s", detail::compact_text(*record.tokens_per_s), options_.row_name);
    add(line, "  exchange {:>2.0f}%", share(record.exchange_ms, record.step_ms, 100));
    add(line, "  load {:.2f}x", record.load_max_over_mean);
    add(line, "  dropped {:.1f}%", share(record.dropped_fraction, {}, 100));
    add(line, "  |g| {:.2f}", record.grad_norm);
    print(line + fmt::format("  lr {:.1e}", record.lr));
}

void ConsoleSink::write(const RouterHealthRecord& record) {
    if (!record.last) {
        const std::string raised = alarms_text(record.layers);
        if (!raised.empty()) print("  raised alarms: " + raised);
        return;
    }
    if (record.layers.empty()) return;
    print(fmt::format("routers in step {} (load: max/mean, variation, evenness, experts without tokens)",
                      record.step));
    print(fmt::format(fmt::runtime(kHealthRow), "layer", "max/mean", "variation", "evenness", "dead",
                      "router entropy", "first weight", "dropped", "changed", "alarms"));
    for (std::size_t i = 0; i < record.layers.size(); ++i)
        print(health_row(record.layers[i],
                         i < record.changed.size() ? std::optional(record.changed[i]) : std::nullopt));
}

void ConsoleSink::write(const EvalRecord& record) {
    evaluation_ = record;
    const std::string total = fmt::format("{}", options_.steps);
    std::string line = fmt::format("eval {:>{}}/{}", record.step, total.size(), total);
    add(line, "  held-out {:>6.3f}", record.heldout_loss);
    add(line, " (error {:.3f})", record.heldout_error);
    add(line, "  train probe {:>6.3f}", record.train_probe_loss);
    add(line, " (error {:.3f})", record.train_probe_error);
    add(line, "  shifted {:>6.3f}", record.shifted_loss);
    add(line, " (error {:.3f})", record.shifted_error);
    add(line, "  gap {:>6.3f}", record.gap);
    if (record.gap_low && record.gap_high)
        line += fmt::format(" [{:.3f}, {:.3f}]", *record.gap_low, *record.gap_high);
    print(line);
    const std::string certificate = certificate_line(record.bounds, record.unit);
    if (!certificate.empty()) print("  certificate: " + certificate);
    const std::string others = bounds_text(record.bounds);
    if (!others.empty()) print("  bounds: " + others);
    if (!record.prequential_off.empty() && !said_why_off_) {
        said_why_off_ = true;
        print("  no certificate from fresh data: " + record.prequential_off);
    }
    if (!record.meaning.empty()) print("  " + record.meaning);
}

void ConsoleSink::write(const AlarmRecord& record) {
    std::string line = fmt::format("ALARM at step {}: {}: {}", record.step, record.kind, record.message);
    std::string about;
    for (const auto& [name, value] : {std::pair("rank", record.rank), std::pair("layer", record.layer),
                                      std::pair("expert", record.expert)})
        if (value) about += fmt::format("{}{} {}", about.empty() ? "" : ", ", name, *value);
    print(about.empty() ? line : line + " (" + about + ")");
}

void ConsoleSink::write(const PlacementRecord& record) {
    std::size_t moved = 0, copies = 0;
    double before = 1, after = 1;
    for (const LayerPlacement& layer : record.layers) {
        moved += layer.experts.size();
        copies += layer.copies.size();
        before = std::max(before, layer.max_over_mean_before);
        after = std::max(after, layer.max_over_mean_after);
    }
    print(fmt::format(
        "placement after step {}: {} expert{} of {} layer{} moved{}, fullest rank {:.2f}x the mean "
        "-> {:.2f}x  {} in {:.1f} ms",
        record.step, moved, moved == 1 ? "" : "s", record.layers.size(), record.layers.size() == 1 ? "" : "s",
        copies > 0 ? fmt::format(", {} copies", copies) : "", before, after,
        detail::bytes_text(static_cast<double>(record.bytes)), 1e3 * record.seconds));
}

void ConsoleSink::write(const CheckpointRecord& record) {
    print(fmt::format("checkpoint of step {}: {}  {} in {:.1f} s, of which training waited {:.0f} ms",
                      record.step, record.path, detail::bytes_text(static_cast<double>(record.bytes)),
                      record.seconds, 1e3 * record.stall_seconds));
}

void ConsoleSink::write(const EndRecord& record) {
    print(fmt::format("{} at step {} after {}", record.status, record.step,
                      detail::duration_text(record.seconds)));
}

}  // namespace moesaic
