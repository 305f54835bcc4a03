// The subcommands of the moesaic binary, each a function from its options to an exit code.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moesaic {

struct TrainOptions {
    std::string config;
    std::vector<std::string> overrides;  ///< "a.b=c"
    std::string out;                     ///< empty: run.out of the configuration
    std::string resume;                  ///< empty: a fresh run; "auto", a run folder or a checkpoint
    bool check = false;
    int ranks_as_threads = 0;
};
int train_command(const TrainOptions& options);

struct EvalOptions {
    std::string checkpoint;  ///< or a run folder
    std::vector<std::string> overrides;
    std::optional<long> top_k;
    bool json = false;
    int ranks_as_threads = 0;
};
int eval_command(const EvalOptions& options);

struct VerifyOptions {
    std::string config;
    std::vector<std::string> overrides;
    std::vector<int> layouts{1, 2, 4};
    long steps = 1;
    bool json = false;
};
int verify_command(const VerifyOptions& options);

struct GenerateOptions {
    std::string checkpoint;
    std::string prompt;
    long tokens = 200;
    double temperature = 0.8;
    unsigned long seed = 1;
};
int generate_command(const GenerateOptions& options);

struct DataDumpOptions {
    std::string config;
    std::vector<std::string> overrides;
    long steps = 1;
    std::string file;
};
int data_dump_command(const DataDumpOptions& options);

struct BoundOptions {
    std::string run;                            ///< run folder; empty: numbers come from `values`
    std::map<std::string, std::string> values;  ///< option ("--top-k") to its text, as typed
    std::string gate, bounds;                   ///< empty: not said; all
    bool no_router_bias = false, measured = false, two_sided = false;
    bool list = false, json = false;
    std::vector<std::string> unknown;  ///< words that are no option
    bool print = true;                 ///< false on all processes of a job but one
};
int bound_command(const BoundOptions& options);
/// "--top-k" of the input top_k.
[[nodiscard]] std::string bound_option(std::string_view input);
/// Whether that input takes a list and makes a table.
[[nodiscard]] bool is_grid_input(std::string_view input);

}  // namespace moesaic
