// The command line of `eval` and `generate`.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/cli/cli.h"
#include "launch/commands/commands.h"

namespace moesaic {

namespace {

void add_eval(CLI::App& app, Selected& selected) {
    const auto options = std::make_shared<EvalOptions>();
    CLI::App* eval = app.add_subcommand("eval", "Evaluate a checkpoint on held-out and training data");
    eval->add_option("CHECKPOINT_OR_RUN", options->checkpoint, "Checkpoint or run folder")->required();
    add_overrides(eval, options->overrides);
    eval->add_option("--top-k", options->top_k, "Active experts at inference")
        ->check(CLI::Range(1, 1000000000));
    eval->add_option("--tokens", options->tokens,
                     "Token ids, int32 or int64 [sequences, tokens]; with --logits")
        ->type_name("FILE.npy");
    eval->add_option("--logits", options->logits,
                     "Write the logits of --tokens, float32 [sequences, tokens, vocabulary], and stop")
        ->type_name("FILE.npy");
    eval->add_flag("--json", options->json, "Print one JSON object");
    add_ranks_as_threads(eval, options->ranks_as_threads);
    eval->callback([=, &selected] { selected = [=] { return eval_command(*options); }; });
}

void add_generate(CLI::App& app, Selected& selected) {
    const auto options = std::make_shared<GenerateOptions>();
    CLI::App* generate = app.add_subcommand("generate", "Sample text from a trained language model");
    generate->add_option("CHECKPOINT_OR_RUN", options->checkpoint, "Checkpoint or run folder")->required();
    generate->add_option("--prompt", options->prompt, "Text to continue")->required();
    add_overrides(generate, options->overrides);
    generate->add_option("--tokens", options->tokens, "Tokens to generate, at most")
        ->check(CLI::Range(0, 1000000000));
    generate->add_option("--temperature", options->temperature, "0 takes the likeliest token")
        ->check(CLI::Range(0.0, 1e6));
    generate->add_option("--seed", options->seed, "Seed of the sampling");
    generate->callback([=, &selected] { selected = [=] { return generate_command(*options); }; });
}

}  // namespace

void add_evaluate_commands(CLI::App& app, Selected& selected) {
    add_eval(app, selected);
    add_generate(app, selected);
}

}  // namespace moesaic
