// Fixture of whole trainings that are compared between layouts.
#pragma once

#include "tests/support/tiny_run.h"
#include "tests/support/training_run.h"

namespace moesaic {

struct Layout {
    int world = 1, expert_parallel = 1;
};

class UnevenTraining : public testing::Test {
  protected:
    /// Ten steps of tiny.yaml; several gradient buckets, uneven micro-batches, exchanges in rounds.
    [[nodiscard]] TrainingRun training_run(DType dtype, const std::vector<std::string>& overrides = {}) {
        std::vector<std::string> all{"parallel.bucket_bytes=20000", "train.batch_sequences=11",
                                     "train.micro_sequences=2", "parallel.receive_budget=0.6"};
        all.insert(all.end(), overrides.begin(), overrides.end());
        setup_ = tiny_run(all);
        TrainingRun run;
        run.config = setup_.config;
        run.spec = setup_.spec;
        run.batches = [this](i64 step, i64 first, i64 count, WindowBuffer windows) {
            const Config& config = setup_.config;
            setup_.dataset->training_batch(static_cast<u64>(config.run.seed), step,
                                           config.train.batch_sequences, first, count, windows);
        };
        run.options.dtype = dtype;
        return run;
    }

    [[nodiscard]] static TrainingOutcome train_on(TrainingRun run, Layout layout) {
        run.world = layout.world;
        run.options.expert_parallel = layout.expert_parallel;
        return train(run);
    }

  private:
    RunSetup setup_;
};

}  // namespace moesaic
