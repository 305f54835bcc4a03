// What a run folder tells: metrics.jsonl and config.yaml as series by field name; old, cut-off and
// half-written ones too.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// Finite values of one field in ascending steps.
struct Series {
    std::vector<double> step, value;
};

/// Tokens per expert of one layer in one step.
struct LoadSnapshot {
    i64 step = 0;
    std::vector<double> load;
};

/// A bound as an evaluation recorded it.
struct RecordedBound {
    std::string name;
    double value = 0;
    bool vacuous = false;
    std::vector<std::pair<std::string, double>> terms;
    std::vector<std::string> open_assumptions;  ///< those that do not hold or are unknown, with their status
    bool violated = false;                      ///< an assumption does not hold, so that it promises nothing
};

/// Which experts each domain's held-out tokens choose, of one layer of the latest evaluation.
struct RecordedDomains {
    i64 layer = 0;
    std::vector<std::string> names;
    std::vector<std::vector<double>> share;  ///< [domains][experts], of a domain's choices
    double information = 0, p_value = 1;
};

struct RecordedAlarm {
    i64 step = 0;
    std::string kind, action, message;
};

struct RunHistory {
    std::string folder;
    std::vector<std::pair<std::string, std::string>>
        facts;           ///< of the `run` record, the configuration excepted
    std::string config;  ///< YAML; empty where nothing holds it
    std::map<std::string, Series>
        series;  ///< "step.loss", "eval.gap", "bound.NAME", "eval.heldout_by_source.NAME"
    std::map<i64, std::map<std::string, Series>> layers;  ///< by layer, then field of its `experts` records
    std::map<i64, std::vector<LoadSnapshot>> loads;       ///< by layer
    std::vector<RecordedBound> bounds;                    ///< of the latest evaluation that has any
    i64 bounds_step = 0;
    std::vector<RecordedDomains> domains;  ///< by layer
    std::string meaning;                   ///< the latest evaluation in plain words; empty where none says so
    std::vector<RecordedAlarm> alarms;
    std::string status = "no end recorded";  ///< of the `end` record
    double seconds = 0;                      ///< of the `end` record; 0 without one
    i64 checkpoints = 0;
    std::vector<std::string> notes;  ///< what was missing, unreadable or not a number

    /// Whether anything is recorded under that name; "experts.FIELD" looks at every layer.
    [[nodiscard]] bool has(std::string_view name) const;
    /// The series of that name; an empty one where there is none.
    [[nodiscard]] const Series& at(const std::string& name) const;
    [[nodiscard]] std::string fact(std::string_view name) const;  ///< empty where it is not recorded
};

/// Reads FOLDER/metrics.jsonl and FOLDER/config.yaml. Lines that are no records, a cut-off last one included,
/// are counted in the notes; of a step recorded twice the later one stands. A folder without a metrics.jsonl
/// is a UserError.
[[nodiscard]] RunHistory read_run(const std::string& folder);

}  // namespace moesaic
