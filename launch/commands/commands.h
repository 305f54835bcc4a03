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
    std::string inject;  ///< faults (launch/faults/fault.h); "help": what there are; empty: none
    bool check = false;
    long trace_step = 0;  ///< 0: none
    int ranks_as_threads = 0;
};
int train_command(const TrainOptions& options);

struct EvalOptions {
    std::string checkpoint;  ///< or a run folder
    std::vector<std::string> overrides;
    std::optional<long> top_k;
    std::string tokens, logits;  ///< .npy files: ids in, logits out, instead of losses
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
    std::vector<std::string> overrides;
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

/// How the files of `data prepare` and `data inspect` are read; the words of `task.data`.
struct DataReadOptions {
    std::string tokenizer = "auto";  ///< auto: bytes for text, none for token ids
    std::optional<long> vocabulary;
    std::string format = "auto", text_key = "text", token_type = "auto", end_of_document = "auto";
};

struct DataPrepareOptions {
    std::vector<std::string> inputs;
    std::string prefix;  ///< of the files to write
    std::string to;      ///< megatron, llmc, nanogpt, npy
    DataReadOptions read;
    long shard_tokens = 0;  ///< 0: the format's own
    bool append_end_of_document = false;
};
int data_prepare_command(const DataPrepareOptions& options);

struct DataInspectOptions {
    std::string path;  ///< data, or a configuration that names them
    std::vector<std::string> overrides;
    std::vector<std::string> given;  ///< what was said of `read` and below, as "task.data.seq_len=1000"
    DataReadOptions read;
    long seq_len = 256;
    double validation = 0.1;
    bool json = false;
};
int data_inspect_command(const DataInspectOptions& options);

struct ConvertImportOptions {
    std::string source;  ///< a folder as save_pretrained writes it
    std::string out;     ///< the run folder to be made
    std::vector<std::string> overrides;
};
int convert_import_command(const ConvertImportOptions& options);

struct ConvertExportOptions {
    std::string checkpoint;  ///< or a run folder
    std::string out;
    bool brain_float = false;  ///< bf16 instead of fp32
    long shard_bytes = 5'000'000'000;
};
int convert_export_command(const ConvertExportOptions& options);

struct ConvertUpcycleOptions {
    std::string source;  ///< dense: a Hugging Face folder, a checkpoint or a run folder
    std::string out;     ///< the run folder to be made
    std::vector<std::string> overrides;
    long experts = 0;
    long top_k = 2;
    long every = 1;
    double noise = 0;  ///< standard deviation, as a share of a tensor's root mean square
    unsigned long seed = 1;
    bool zero_router = false;
};
int convert_upcycle_command(const ConvertUpcycleOptions& options);

struct ConvertReshardOptions {
    std::string checkpoint;  ///< or a run folder
    std::string out;         ///< the run folder to be made
    long shards = 1;
};
int convert_reshard_command(const ConvertReshardOptions& options);

struct ConvertAuditOptions {
    std::string checkpoint;  ///< or a run folder
    bool json = false;
};
int convert_audit_command(const ConvertAuditOptions& options);

struct BoundOptions {
    std::string run;                            ///< run folder; empty: numbers come from `values`
    std::map<std::string, std::string> values;  ///< option ("--top-k") to its text, as typed
    std::string gate, bounds;                   ///< empty: not said; all
    bool no_router_bias = false, measured = false, two_sided = false;
    bool list = false, json = false;
    std::vector<std::string> unknown;  ///< words that are no option
    bool print = true;                 ///< false on all processes of a job but one
    bool pac_bayes = false;            ///< of `run`: computed, not read; needs its data
    std::string prior;                 ///< checkpoint; empty: of the run's, see choose_prior
    long draws = 500;                  ///< of weights
    int ranks_as_threads = 0;
};
int bound_command(const BoundOptions& options);
int bound_pac_bayes_command(const BoundOptions& options);
/// "--top-k" of the input top_k.
[[nodiscard]] std::string bound_option(std::string_view input);
/// Whether that input takes a list and makes a table.
[[nodiscard]] bool is_grid_input(std::string_view input);

struct ReportOptions {
    std::string folder;          ///< of a run
    std::string out;             ///< HTML file; empty: report.html in `folder`
    std::string figures;         ///< folder for figure files; empty: none
    std::string format = "svg";  ///< of those
};
int report_command(const ReportOptions& options);

struct StudyCommandOptions {
    std::string study;    ///< YAML
    std::string out;      ///< folder for study folders; empty: what the study says
    bool resume = false;  ///< keep complete runs
    bool smoke = false;   ///< the study's small size
    bool check = false;
    std::vector<std::string> predict;  ///< "experts=T,top_k=k,samples=N": foretell, and run nothing
};
int study_command(const StudyCommandOptions& options);

struct PlanCommandOptions {
    std::string config, cluster;
    std::vector<std::string> overrides;
    std::vector<long> ranks;  ///< empty: all that fill nodes evenly
    std::string traffic = "uniform";
    long rows = 15;
    bool json = false;
};
int plan_command(const PlanCommandOptions& options);

struct DoctorCommandOptions {
    bool json = false;
    bool quick = false;
    std::string out = "runs";  ///< where run folders would be
    int ranks_as_threads = 0;
};
int doctor_command(const DoctorCommandOptions& options);

}  // namespace moesaic
