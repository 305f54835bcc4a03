// Trains a configuration on two ranks, which are threads; under mpirun on its ranks.
#include <cstdio>
#include <string>
#include <vector>

#include "comm/mpi_communicator.h"
#include "launch/ranks.h"
#include "launch/run_setup.h"
#include "launch/trainer.h"

int main(int count, char** words) {
    if (count < 3) {
        std::fprintf(stderr, "usage: %s CONFIG.yaml FOLDER [key=value ...]\n", words[0]);
        return 2;
    }
    const std::string config = words[1], folder = words[2];
    const std::vector<std::string> overrides(words + 3, words + count);
    return moesaic::run_on_ranks(moesaic::mpi_launched() ? 0 : 2, [&](moesaic::Communicator& world) {
        const moesaic::RunSetup run = moesaic::load_run(config, overrides);
        moesaic::TrainerOptions options;
        options.run_folder = folder + "/" + run.config.run.name;
        moesaic::Trainer trainer(run, world, options);
        const int code = trainer.run().value_or(1);  // empty only with train.nonfinite: rollback
        if (world.rank() == 0)
            std::printf("trained on %d ranks; numbers and checkpoints: %s\n", world.size(),
                        options.run_folder.c_str());
        return code;
    });
}
