// The moesaic binary: reads the command line, runs one subcommand, turns failures into the contract's exit
// codes.
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "launch/commands/commands.h"
#include "runtime/base/build_info.h"
#include "runtime/base/error.h"
#include "runtime/config/diagnostics.h"

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

/// Exit code 2, with `text` printed by one process. The others wait a little: the launcher ends the whole job
/// as soon as one process leaves, and what the first one says would be lost.
int user_mistake(const std::string& text) {
    if (speaks_for_the_job()) {
        std::fprintf(stderr, "%s\n", text.c_str());
    } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
    return 2;
}

int not_in_this_version(const std::string& name) {
    return user_mistake("moesaic " + name + ": not in this version");
}

/// Empty, or what to say about a first argument that is no subcommand.
std::string unknown_subcommand(const CLI::App& app, const std::string& argument) {
    std::vector<std::string> names;
    for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
        names.push_back(command->get_name());
    if (argument.starts_with("-") || std::find(names.begin(), names.end(), argument) != names.end())
        return "";
    const std::string near = nearest_name(argument, names);
    return fmt::format("moesaic: '{}' is no subcommand; {}one of: {}", argument,
                       near.empty() ? "" : fmt::format("did you mean '{}'? ", near), fmt::join(names, ", "));
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
    if (argc > 1) {
        const std::string unknown = unknown_subcommand(app, argv[1]);
        if (!unknown.empty()) return user_mistake(unknown);
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return speaks_for_the_job() ? app.exit(error) : 0;
        return user_mistake(fmt::format(
            "moesaic: {}; see moesaic {}--help", error.what(),
            app.get_subcommands().empty() ? "" : app.get_subcommands().front()->get_name() + " "));
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
        return user_mistake(error.what());
    } catch (const std::exception& error) {
        std::fprintf(stderr, "moesaic: error: %s\n", error.what());
        return 1;
    }
}
