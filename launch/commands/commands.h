// The subcommands of the moesaic binary, each a function from its options to an exit code.
#pragma once

#include <optional>
#include <string>
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

struct DoctorCommandOptions {
    bool json = false;
    bool quick = false;
    std::string out = "runs";  ///< where run folders would be
    int ranks_as_threads = 0;
};
int doctor_command(const DoctorCommandOptions& options);

}  // namespace moesaic
