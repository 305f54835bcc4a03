// Starting the built binary as a user would, and reading what it leaves.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/types.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic::e2e {

using Json = nlohmann::json;
using Words = std::vector<std::string>;

struct CommandOptions {
    std::map<std::string, std::string> environment;  ///< on top of the test's own
    double timeout_seconds = 60;                     ///< then the command is killed
    std::optional<i64> largest_file;                 ///< bytes; a stand-in for a full disk
};

struct CommandResult {
    int code = -1;  ///< 128 + n after death by signal n
    bool timed_out = false;
    i64 most_resident_bytes = 0;  ///< of the started process alone; under mpirun that is not a rank
    std::string out, err;
    /// All of it, for failure messages.
    [[nodiscard]] std::string text() const;
};

/// A command in the root of the source tree, from its start to its end.
class Command {
  public:
    explicit Command(const Words& words, const CommandOptions& options = {});
    Command(const Command&) = delete;
    Command& operator=(const Command&) = delete;
    ~Command();

    void signal(int number) const;
    [[nodiscard]] bool running();
    CommandResult wait();

  private:
    ScratchFolder scratch_;
    CommandOptions options_;
    pid_t process_ = -1;
    std::optional<int> status_;
    i64 most_resident_bytes_ = 0;

    bool reap(bool block);
};

/// Where a command's ranks come from.
struct Ranks {
    enum class Kind { alone, mpirun, threads } kind = Kind::alone;
    int count = 1;
};
inline constexpr Ranks kAlone{};
[[nodiscard]] constexpr Ranks mpirun(int count) {
    return {Ranks::Kind::mpirun, count};
}
[[nodiscard]] constexpr Ranks threads(int count) {
    return {Ranks::Kind::threads, count};
}
[[nodiscard]] std::string name_of(const Ranks& ranks);
/// False in a build without MPI: tests that need it skip themselves.
[[nodiscard]] bool have_mpi();
[[nodiscard]] bool can_run(const Ranks& ranks);

/// The whole command line for `moesaic ARGUMENTS` on those ranks.
[[nodiscard]] Words moesaic_words(const Words& arguments, const Ranks& ranks = kAlone);
CommandResult moesaic(const Words& arguments, const Ranks& ranks = kAlone,
                      const CommandOptions& options = {});

/// `train configs/tiny.yaml` for 20 steps, with looks and checkpoints at steps 10 and 20, and with
/// `key=value` overrides into `out`, whose run folder is out/tiny.
[[nodiscard]] Words tiny(const std::string& out, const Words& overrides = {}, const Words& more = {});
/// That run; expects exit code 0 and returns the records of its metrics.jsonl.
std::vector<Json> train_tiny(const std::string& out, const Ranks& ranks, const Words& overrides = {},
                             const Words& more = {});

/// Of a run of configs/tiny.yaml; steps of two figures.
[[nodiscard]] std::string checkpoint_of(const std::string& out, int step);
[[nodiscard]] Words lines_of(const std::string& text);
[[nodiscard]] std::vector<Json> read_records(const std::string& run_folder);
[[nodiscard]] std::vector<Json> events(const std::vector<Json>& records, const std::string& event);
/// Step to loss, over the `step` records; a step that is recorded twice is a failure.
[[nodiscard]] std::map<i64, double> losses(const std::vector<Json>& records);
[[nodiscard]] int occurrences(const std::string& text, const std::string& piece);

/// A tensor of a checkpoint as it was stored.
struct StoredTensor {
    std::string dtype;
    std::vector<i64> shape;
    std::string bytes;
    bool operator==(const StoredTensor&) const = default;
};
using StoredTensors = std::map<std::string, StoredTensor>;
[[nodiscard]] StoredTensors read_tensors(const std::string& checkpoint);
/// The same names, and equal bytes under each.
void expect_same_bytes(const StoredTensors& left, const StoredTensors& right);
/// L2 norm of the difference over that of `right`, for f32 tensors.
[[nodiscard]] double relative_difference(const StoredTensor& left, const StoredTensor& right);

/// What a user's mistake or a failed run must look like: the exit code, and each text once on stderr.
void expect_failure(const CommandResult& result, int code, const Words& texts);

}  // namespace moesaic::e2e
