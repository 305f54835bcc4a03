// moesaic data dump: the exact global batches of the first steps, for other programs.
#include "launch/commands/commands.h"
#include "launch/ranks.h"
#include "launch/run_setup.h"
#include "runtime/data/npy.h"

namespace moesaic {

int data_dump_command(const DataDumpOptions& options) {
    return run_on_ranks(0, [&](Communicator& world) {
        const RunSetup run = load_run(options.config, options.overrides);
        expect_language_model(run, "data dump");
        if (world.rank() != 0) return 0;
        const i64 sequences = run.config.train.batch_sequences, width = run.spec.seq_len + 1;
        std::vector<i32> batch(static_cast<std::size_t>(sequences * width));
        NpyWriter file(options.file, {options.steps, sequences, width});
        for (i64 step = 1; step <= options.steps; ++step) {
            run.dataset->training_batch(static_cast<u64>(run.config.run.seed), step, sequences, 0, sequences,
                                        batch.data());
            file.append(batch);
        }
        file.finish();
        return 0;
    });
}

}  // namespace moesaic
