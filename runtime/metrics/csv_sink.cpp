#include "runtime/metrics/csv_sink.h"

#include <fmt/format.h>

#include <cmath>
#include <type_traits>
#include <utility>

#include "runtime/base/log.h"

namespace moesaic {

namespace {

void append_cell(std::string& line, double value) {
    line += std::isnan(value) ? "nan," : fmt::format("{},", value);  // never "-nan"
}
void append_cell(std::string& line, i64 value) {
    line += fmt::format("{},", value);
}
void append_cell(std::string& line, const std::string& word) {  // of ours: no comma in it
    line += word + ',';
}
void append_cell(std::string&, const std::map<std::string, BoundResult>&) {}  // no cell holds an object
template <class T>
void append_cell(std::string& line, const std::optional<T>& value) {
    if (value)
        append_cell(line, *value);
    else
        line += ',';
}

template <class T>
constexpr bool has_cell(const T&) {
    return !std::is_same_v<T, std::map<std::string, BoundResult>>;
}

std::string header_line() {
    std::string line;
    StepRecord().fields([&](std::string_view name, const auto& value) {
        if (has_cell(value)) line += fmt::format("{},", name);
    });
    return line + "heldout_loss,train_probe_loss,gap";
}

}  // namespace

CsvSink::CsvSink(const SinkOptions& options) : file_(options.folder + "/metrics.csv", options.resume) {
    if (file_.empty()) file_.append(header_line());
}

CsvSink::~CsvSink() {
    try {
        write_pending();
    } catch (const std::exception& error) {
        log_warn("{}", error.what());
    }
}

void CsvSink::write(const StepRecord& record) {
    write_pending();
    pending_ = Row{record.step, record, {}};
}

void CsvSink::write(const EvalRecord& record) {
    if (pending_ && pending_->step != record.step) write_pending();
    if (!pending_) pending_ = Row{record.step, {}, {}};
    pending_->evaluation = record;
}

void CsvSink::write_pending() {
    if (!pending_) return;
    const Row row = *std::exchange(pending_, std::nullopt);
    std::string line;
    StepRecord().fields([&](std::string_view name, const auto& value) {
        if (!row.fields && has_cell(value)) line += name == "step" ? fmt::format("{},", row.step) : ",";
    });
    if (row.fields)
        row.fields->fields([&](std::string_view, const auto& value) { append_cell(line, value); });
    append_cell(line, row.evaluation.heldout_loss);
    append_cell(line, row.evaluation.train_probe_loss);
    append_cell(line, row.evaluation.gap);
    line.pop_back();
    file_.append(std::move(line));
}

void CsvSink::flush() {
    write_pending();
    file_.sync();
}

}  // namespace moesaic
