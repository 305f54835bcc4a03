// The flight records of a rank as data and as text, and what those of all ranks say about a hang.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// A communicator, by which records of several ranks are compared.
struct FlightGroup {
    std::string name;
    std::vector<int> world_ranks;  ///< by rank of the group
    i64 entered = 0;               ///< collectives that this rank has entered
};

/// One collective of one rank.
struct FlightRecord {
    std::size_t group = 0;  ///< in the log's groups
    i64 sequence = -1;      ///< in the group's order, from 0, the same collective on every rank; -1: pairwise
    u64 history = 0;  ///< hash of the group's collectives up to this one: equal where nobody has diverged
    std::string verb, operation;
    int layer = -1;
    i64 step = -1, rows = 0, row_bytes = 0;
    u64 shape = 0;
    double began = 0, ended = -1;  ///< seconds since the rank's start; -1: under way

    [[nodiscard]] bool under_way() const { return ended < 0; }
    /// "all_to_all_rows 'dispatch, layer 5'".
    [[nodiscard]] std::string text() const;
};

struct FlightLog {
    int rank = 0, world_size = 1;
    double written = 0;  ///< seconds since the rank's start
    std::string host;
    std::vector<FlightGroup> groups;
    std::vector<FlightRecord> records;  ///< oldest first
};

/// Lines with tabs between columns, for people and for read_flight_log. Throws UserError naming `path` and
/// the line where the text is no such log.
[[nodiscard]] std::string to_text(const FlightLog& log);
[[nodiscard]] FlightLog read_flight_log(std::string_view text, const std::string& path);

/// What the logs say, a finding a line, the most telling first: which collective ranks of a group entered
/// differently, who has not come to one that others wait in and where he is instead, whose log is missing.
[[nodiscard]] std::string diagnose_hang(const std::map<int, FlightLog>& logs, int world_size);

}  // namespace moesaic
