// The command line of `data`.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "launch/cli/cli.h"
#include "launch/commands/commands.h"

namespace moesaic {

namespace {

void add_dump(CLI::App& data, Selected& selected) {
    const auto options = std::make_shared<DataDumpOptions>();
    CLI::App* dump = data.add_subcommand("dump", "Write the exact global batches of steps 1...N as .npy");
    dump->add_option("CONFIG", options->config, "Configuration (YAML)")->required();
    add_overrides(dump, options->overrides);
    dump->add_option("--steps", options->steps, "Number of steps N")->check(CLI::Range(1, 1000000000));
    dump->add_option("-o,--output", options->file, "File to write")->required()->type_name("FILE.npy");
    dump->callback([=, &selected] { selected = [=] { return data_dump_command(*options); }; });
}

/// The words of `task.data` as options.
void add_reading(CLI::App* command, DataReadOptions& options) {
    command->add_option("--tokenizer", options.tokenizer, "bytes, none, or a tokenizer's file");
    command->add_option("--vocabulary", options.vocabulary, "Number of token ids, where no tokenizer tells")
        ->check(CLI::Range(1, 16777216));
    command->add_option("--format", options.format, "auto, text, jsonl, bin, megatron, npy");
    command->add_option("--text-key", options.text_key, "Member of a JSON line that is the text");
    command->add_option("--token-type", options.token_type, "Ids of a .bin without header: uint16, uint32")
        ->check(CLI::IsMember({"auto", "uint16", "uint32"}));
    command->add_option("--end-of-document", options.end_of_document, "auto, none, or an id");
}

void add_prepare(CLI::App& data, Selected& selected) {
    const auto options = std::make_shared<DataPrepareOptions>();
    CLI::App* prepare = data.add_subcommand(
        "prepare", "Tokenize text, or convert token files, for training from a memory map");
    prepare->add_option("INPUT", options->inputs, "Files, folders, patterns, Megatron prefixes")->required();
    prepare->add_option("-o,--output", options->prefix, "Path of the files to write, without ending")
        ->required()
        ->type_name("PREFIX");
    prepare->add_option("--to", options->to, "megatron, llmc, nanogpt or npy")
        ->required()
        ->check(CLI::IsMember({"megatron", "llmc", "nanogpt", "npy"}));
    add_reading(prepare, options->read);
    prepare->add_option("--shard-tokens", options->shard_tokens, "Begin a new file after so many tokens")
        ->check(CLI::Range(1L, 1000000000000L));
    prepare->add_flag("--append-eod", options->append_end_of_document,
                      "End every document with the end-of-document id");
    prepare->callback([=, &selected] { selected = [=] { return data_prepare_command(*options); }; });
}

/// The key of `task.data` that an option of `inspect` stands for; empty: none.
std::string key_of(std::string option) {
    std::replace(option.begin(), option.end(), '-', '_');
    const auto keys = {"tokenizer",  "vocabulary",      "format",  "text_key",
                       "token_type", "end_of_document", "seq_len", "validation"};
    return std::find(keys.begin(), keys.end(), option) == keys.end() ? "" : option;
}

void add_inspect(CLI::App& data, Selected& selected) {
    const auto options = std::make_shared<DataInspectOptions>();
    CLI::App* inspect = data.add_subcommand("inspect", "What data hold: format, documents, tokens, oddities");
    inspect->add_option("PATH|CONFIG", options->path, "Data, or a configuration (.yaml)")->required();
    add_overrides(inspect, options->overrides);
    add_reading(inspect, options->read);
    inspect->add_option("--seq-len", options->seq_len, "Count windows of so many tokens")
        ->check(CLI::PositiveNumber);
    inspect->add_option("--validation", options->validation, "Share of each file that is held out")
        ->check(CLI::Range(0.0, 0.99));
    inspect->add_flag("--json", options->json, "Print one JSON object");
    inspect->callback([=, &selected] {
        for (const CLI::Option* option : inspect->get_options()) {
            const std::string key = key_of(option->get_single_name());
            if (!key.empty() && option->count() > 0)
                options->given.push_back(fmt::format("task.data.{}={}", key, option->as<std::string>()));
        }
        selected = [=] { return data_inspect_command(*options); };
    });
}

}  // namespace

void add_data_commands(CLI::App& app, Selected& selected) {
    CLI::App* data = app.add_subcommand("data", "Data in and out");
    data->require_subcommand(1);
    add_dump(*data, selected);
    add_prepare(*data, selected);
    add_inspect(*data, selected);
}

}  // namespace moesaic
