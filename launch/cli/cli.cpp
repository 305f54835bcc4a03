// What the subcommands' files share: common options, and how a mistake on the command line ends.
#include "launch/cli/cli.h"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace moesaic {

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

bool speaks_for_the_job() {
    for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
        if (const char* rank = std::getenv(name)) return std::atoi(rank) == 0;
    }
    return true;
}

int user_mistake(const std::string& text) {
    if (speaks_for_the_job()) {
        std::fprintf(stderr, "%s\n", text.c_str());
    } else {
        // The launcher ends the whole job as soon as one process leaves, and what the first one says would be
        // lost.
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
    return 2;
}

}  // namespace moesaic
