// The command line of `convert`.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/cli/cli.h"
#include "launch/commands/commands.h"

namespace moesaic {

namespace {

constexpr long kMost = 1000000000;

/// Conversions are one process's work: under mpirun the others have nothing to do.
int once(const std::function<int()>& command) {
    return speaks_for_the_job() ? command() : 0;
}

void add_import(CLI::App& convert, Selected& selected) {
    const auto options = std::make_shared<ConvertImportOptions>();
    CLI::App* command = convert.add_subcommand(
        "import", "Mixtral, OLMoE, Qwen3-MoE or Llama of Hugging Face to a run folder");
    command->add_option("DIR", options->source, "Folder with config.json and safetensors")->required();
    command->add_option("OUT", options->out, "Run folder to be made")->required();
    add_overrides(command, options->overrides);
    command->callback([=, &selected] {
        selected = [=] { return once([=] { return convert_import_command(*options); }); };
    });
}

void add_export(CLI::App& convert, Selected& selected) {
    const auto options = std::make_shared<ConvertExportOptions>();
    CLI::App* command = convert.add_subcommand("export", "A checkpoint to a folder that Hugging Face loads");
    command->add_option("RUN_OR_CHECKPOINT", options->checkpoint, "Checkpoint or run folder")->required();
    command->add_option("DIR", options->out, "Folder to be made")->required();
    const auto format = std::make_shared<std::string>("hf");
    command->add_option("--to", *format, "Format: hf")->check(CLI::IsMember({"hf"}));
    const auto dtype = std::make_shared<std::string>("fp32");
    command->add_option("--dtype", *dtype, "Type of the weights: fp32 or bf16")
        ->check(CLI::IsMember({"fp32", "bf16"}));
    command->add_option("--shard-bytes", options->shard_bytes, "Most bytes of weights in a file")
        ->check(CLI::Range(1L, 1000000000000000L));
    command->callback([=, &selected] {
        (void)format;  // kept alive for the parser
        options->brain_float = *dtype == "bf16";
        selected = [=] { return once([=] { return convert_export_command(*options); }); };
    });
}

void add_upcycle(CLI::App& convert, Selected& selected) {
    const auto options = std::make_shared<ConvertUpcycleOptions>();
    CLI::App* command =
        convert.add_subcommand("upcycle", "A dense model to a mixture of copies of its feed-forward");
    command->add_option("SOURCE", options->source, "Llama of Hugging Face, or a dense checkpoint or run")
        ->required();
    command->add_option("OUT", options->out, "Run folder to be made")->required();
    add_overrides(command, options->overrides);
    command->add_option("--experts", options->experts, "Experts of a layer")
        ->required()
        ->check(CLI::Range(1L, 65536L));
    command->add_option("--top-k", options->top_k, "Experts that a token visits")
        ->check(CLI::Range(1L, 65536L));
    command->add_option("--every", options->every, "Every n-th layer gets experts")
        ->check(CLI::Range(1L, kMost));
    command
        ->add_option("--noise", options->noise,
                     "Noise on each expert, as a share of the tensor's root mean square")
        ->check(CLI::Range(0.0, 100.0));
    command->add_option("--seed", options->seed, "Seed of noise and router");
    const auto router = std::make_shared<std::string>("normal");
    command->add_option("--init-router", *router, "Routers begin with init_std or with zeros")
        ->check(CLI::IsMember({"zero", "normal"}));
    command->callback([=, &selected] {
        options->zero_router = *router == "zero";
        selected = [=] { return once([=] { return convert_upcycle_command(*options); }); };
    });
}

void add_reshard(CLI::App& convert, Selected& selected) {
    const auto options = std::make_shared<ConvertReshardOptions>();
    CLI::App* command =
        convert.add_subcommand("reshard", "The same checkpoint in another number of files, without ranks");
    command->add_option("RUN_OR_CHECKPOINT", options->checkpoint, "Checkpoint or run folder")->required();
    command->add_option("OUT", options->out, "Run folder to be made")->required();
    command->add_option("--shards", options->shards, "Number of files")
        ->required()
        ->check(CLI::Range(1L, 99999L));
    command->callback([=, &selected] {
        selected = [=] { return once([=] { return convert_reshard_command(*options); }); };
    });
}

void add_audit(CLI::App& convert, Selected& selected) {
    const auto options = std::make_shared<ConvertAuditOptions>();
    CLI::App* command = convert.add_subcommand("audit", "Is a checkpoint complete, undamaged and finite?");
    command->add_option("RUN_OR_CHECKPOINT", options->checkpoint, "Checkpoint or run folder")->required();
    command->add_flag("--json", options->json, "Print one JSON object");
    command->callback(
        [=, &selected] { selected = [=] { return once([=] { return convert_audit_command(*options); }); }; });
}

}  // namespace

void add_convert_commands(CLI::App& app, Selected& selected) {
    CLI::App* convert = app.add_subcommand("convert", "Checkpoints in and out, resharding, upcycling, audit");
    convert->require_subcommand(1);
    add_import(*convert, selected);
    add_export(*convert, selected);
    add_upcycle(*convert, selected);
    add_reshard(*convert, selected);
    add_audit(*convert, selected);
}

}  // namespace moesaic
