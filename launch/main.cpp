// The moesaic binary: reads the command line, runs one subcommand, turns failures into the contract's exit
// codes.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>

#include "launch/commands/commands.h"
#include "runtime/base/build_info.h"
#include "runtime/base/error.h"

namespace {

using namespace moesaic;

/// Subcommands and verbs of the contract that this version does not have yet.
constexpr std::pair<const char*, const char*> kNotInThisVersion[] = {
    {"study", "a grid of runs, resumable, one results table"},
    {"report", "one self-contained HTML file with figures and tables"},
    {"bound", "the generalization-bound calculator"},
    {"bench", "cluster benchmarks, laid out as nccl-tests lays them out"},
    {"plan", "predicts memory, traffic and step time for layouts"},
    {"convert", "Hugging Face safetensors in and out, resharding, upcycling, audit"},
    {"doctor", "what this machine and this MPI allocation offer"},
};

/// Whether this process speaks for the job before MPI is up: the launcher's rank, 0 without one.
bool speaks_for_the_job() {
    for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
        if (const char* rank = std::getenv(name)) return std::atoi(rank) == 0;
    }
    return true;
}

void add_overrides(CLI::App* command, std::vector<std::string>& overrides) {
    command
        ->add_option("--set", overrides, "Override a configuration key: --set optimizer.lr=1e-3 (repeatable)")
        ->type_name("KEY=VALUE")
        ->take_all()
        ->expected(1)
        ->allow_extra_args(false);
}

void add_ranks_as_threads(CLI::App* command, int& ranks) {
    command->add_option("--ranks-as-threads", ranks, "Run N ranks as threads of this process, without MPI")
        ->type_name("N")
        ->check(CLI::Range(1, 1024));
}

void add_train(CLI::App& app, TrainOptions& options) {
    CLI::App* train = app.add_subcommand("train", "Train a model; under mpirun or srun on many ranks");
    train->add_option("CONFIG", options.config, "Configuration (YAML)")->required();
    add_overrides(train, options.overrides);
    train->add_option("--out", options.out, "Folder for run folders, instead of run.out")->type_name("DIR");
    train
        ->add_option("--resume", options.resume,
                     "Go on from a checkpoint, a run folder, or 'auto': this run's newest")
        ->type_name("DIR|auto");
    train->add_flag("--check", options.check,
                    "Validate everything, print layout, memory and traffic, and stop");
    add_ranks_as_threads(train, options.ranks_as_threads);
}

void add_eval(CLI::App& app, EvalOptions& options) {
    CLI::App* eval = app.add_subcommand("eval", "Evaluate a checkpoint on held-out and training data");
    eval->add_option("CHECKPOINT_OR_RUN", options.checkpoint, "Checkpoint or run folder")->required();
    add_overrides(eval, options.overrides);
    eval->add_option("--top-k", options.top_k, "Active experts at inference")->check(CLI::PositiveNumber);
    eval->add_flag("--json", options.json, "Print one JSON object");
    add_ranks_as_threads(eval, options.ranks_as_threads);
}

void add_verify(CLI::App& app, VerifyOptions& options) {
    CLI::App* verify =
        app.add_subcommand("verify", "Layout certificate: the same batch on several layouts, compared");
    verify->add_option("CONFIG", options.config, "Configuration (YAML)")->required();
    add_overrides(verify, options.overrides);
    verify->add_option("--layouts", options.layouts, "World sizes to compare, e.g. 1,2,4")->delimiter(',');
    verify->add_option("--steps", options.steps, "Steps to train; losses after the first are compared too")
        ->check(CLI::PositiveNumber);
    verify->add_flag("--json", options.json, "Print one JSON object");
}

void add_generate(CLI::App& app, GenerateOptions& options) {
    CLI::App* generate = app.add_subcommand("generate", "Sample text from a trained language model");
    generate->add_option("CHECKPOINT_OR_RUN", options.checkpoint, "Checkpoint or run folder")->required();
    generate->add_option("--prompt", options.prompt, "Text to continue")->required();
    generate->add_option("--tokens", options.tokens, "Tokens to generate")->check(CLI::NonNegativeNumber);
    generate->add_option("--temperature", options.temperature, "0 takes the likeliest token")
        ->check(CLI::NonNegativeNumber);
    generate->add_option("--seed", options.seed, "Seed of the sampling");
}

CLI::App* add_data(CLI::App& app, DataDumpOptions& options) {
    CLI::App* data = app.add_subcommand("data", "Data in and out");
    data->require_subcommand(1);
    CLI::App* dump = data->add_subcommand("dump", "Write the exact global batches of steps 1...N as .npy");
    dump->add_option("CONFIG", options.config, "Configuration (YAML)")->required();
    add_overrides(dump, options.overrides);
    dump->add_option("--steps", options.steps, "Number of steps N")->check(CLI::PositiveNumber);
    dump->add_option("-o,--output", options.file, "File to write")->required()->type_name("FILE.npy");
    for (const char* name : {"prepare", "inspect"}) {
        data->add_subcommand(name, "(not in this version)")->allow_extras();
    }
    return dump;
}

int not_in_this_version(const std::string& name) {
    if (speaks_for_the_job()) std::fprintf(stderr, "moesaic %s: not in this version\n", name.c_str());
    return 2;
}

int run(int argc, char** argv) {
    CLI::App app{"Moesaic: expert-parallel training of sparse mixture-of-experts models"};
    app.set_version_flag("--version", fmt::format("moesaic {} ({})", kVersion, kCommit));
    app.require_subcommand(1);
    TrainOptions train;
    EvalOptions eval;
    VerifyOptions verify;
    GenerateOptions generate;
    DataDumpOptions dump;
    add_train(app, train);
    add_eval(app, eval);
    add_verify(app, verify);
    add_generate(app, generate);
    const CLI::App* const dump_command = add_data(app, dump);
    for (const auto& [name, help] : kNotInThisVersion) {
        app.add_subcommand(name, fmt::format("{} (not in this version)", help))->allow_extras();
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (!speaks_for_the_job()) return error.get_exit_code() == 0 ? 0 : 2;
        return app.exit(error) == 0 ? 0 : 2;
    }
    const std::string name = app.get_subcommands().front()->get_name();
    if (name == "train") return train_command(train);
    if (name == "eval") return eval_command(eval);
    if (name == "verify") return verify_command(verify);
    if (name == "generate") return generate_command(generate);
    if (dump_command->parsed()) return data_dump_command(dump);
    if (name == "data")
        return not_in_this_version("data " +
                                   app.get_subcommands().front()->get_subcommands().front()->get_name());
    return not_in_this_version(name);
}

}  // namespace

int main(int argc, char** argv) {
    // A reader that goes away and a file that may not grow become errors with a text, not a death without
    // one.
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN);
    try {
        return run(argc, argv);
    } catch (const moesaic::UserError& error) {
        if (speaks_for_the_job()) std::fprintf(stderr, "%s\n", error.what());
        return 2;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "moesaic: error: %s\n", error.what());
        return 1;
    }
}
