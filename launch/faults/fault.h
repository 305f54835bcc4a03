// Faults that a user can order (`train --inject`): the table of kinds, and reading of orders.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "layers/model_spec.h"
#include "runtime/config/config.h"

namespace moesaic {

enum class FaultType : std::uint8_t {
    kill,
    hang,
    late,
    wrong_order,
    zero_tokens,
    nan,
    flip,
    truncate_checkpoint,
    bitflip_checkpoint,
    full_disk,
    slow_disk,
};

/// One fault to come. Fields that its kind does not have stay as they are.
struct Fault {
    FaultType type = FaultType::kill;
    std::optional<i64> step;  ///< of training, or of the checkpoint; empty: of every checkpoint
    i64 rank = 0, layer = 0, expert = 0, shard = 0;
    i64 bit = 30;  ///< the highest of the exponent of the first number
    double seconds = 0;
    std::string where;  ///< kill: step or checkpoint; nan: gradient or weight
};

/// A row of the table: what the order says, what happens, and how the run answers.
struct FaultKind {
    FaultType type;
    std::string_view name;
    std::string_view needs;    ///< fields that have to be given, separated by spaces
    std::string_view may;      ///< fields that may be
    std::string_view example;  ///< of configs/tiny.yaml on two ranks or more
    std::string_view does;
    std::string_view answer;  ///< what the program says and does
};
[[nodiscard]] const std::vector<FaultKind>& fault_table();
[[nodiscard]] const FaultKind& kind_of(FaultType type);

/// "kill:rank=2,step=5,slow-disk:seconds=3". Every mistake at once in a UserError.
[[nodiscard]] std::vector<Fault> parse_faults(const std::string& orders);

struct FaultyRun {
    const Config& config;
    const ModelSpec& spec;
    int world = 1, expert_parallel = 1;
    bool ranks_as_threads = false;
};
/// A UserError with every fault that cannot be in such a run, and why.
void check_faults(const std::vector<Fault>& faults, const FaultyRun& run);

/// The table for people, as `--inject help` prints it.
[[nodiscard]] std::string faults_text();
/// The same as the rows of launch/README.md.
[[nodiscard]] std::string faults_markdown();

}  // namespace moesaic
