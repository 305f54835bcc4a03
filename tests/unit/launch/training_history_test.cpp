// What weights were trained on, over the legs of a run: what may be held out, and what is still ahead.
#include "launch/training_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/checkpoint_loading.h"
#include "runtime/base/philox.h"
#include "tests/support/tiny_run.h"
#include "tests/unit/runtime/data/temporary_folder.h"

namespace moesaic {
namespace {

using Observers = std::map<std::string, std::vector<double>>;
using testing::HasSubstr;
using testing::IsEmpty;

Observers of_new_run(const RunSetup& run, i64 step) {
    TrainingHistory history(run);
    history.begin({}, false);
    return history.observers(step);
}

TrainingHistory leg(const RunSetup& run, i64 step, const Observers& observers) {
    TrainingHistory history(run);
    history.begin({step, 0, observers}, true);
    return history;
}

void expect_counts(const TrainedOn& history, i64 met, i64 trained, i64 prefix) {
    EXPECT_EQ(history.met, met);
    EXPECT_EQ(history.trained, trained);
    EXPECT_EQ(history.prefix, prefix);
}

TEST(TrainingHistory, CountsWhatWasMetOverLegsOfOtherBatches) {
    const RunSetup eight = tiny_run({"train.batch_sequences=8"});
    const Observers first = of_new_run(eight, 10);
    expect_counts(*trained_on(first), 80, 80, 80);

    const TrainingHistory larger = leg(tiny_run({"train.batch_sequences=16"}), 10, first);
    expect_counts(larger.after(10), 80, 80, 80);
    expect_counts(larger.after(12), 192, 112, 80);  // 80 to 160 were never met
    EXPECT_THAT(larger.why_order_unknown(), IsEmpty());

    const TrainingHistory smaller = leg(tiny_run({"train.batch_sequences=4"}), 10, first);
    expect_counts(smaller.after(12), 80, 80, 80);  // 40 to 48, once more
    expect_counts(smaller.after(30), 120, 120, 120);
    EXPECT_EQ(met_by(12, smaller.observers(12), eight.config.train), 80);
    EXPECT_EQ(met_by(12, {}, eight.config.train), 96) << "nothing is on record";
}

TEST(TrainingHistory, CountsWhatWasLeftOutAsMetAndNotAsTrainedOn) {
    const RunSetup run = tiny_run({"train.batch_sequences=8"});
    TrainingHistory history = leg(run, 3, of_new_run(run, 3));
    history.shift_batches(2);
    expect_counts(history.after(3), 24, 24, 24);
    expect_counts(history.after(5), 56, 40, 24);
    const auto epoch = run.dataset->first_epoch_sequences(1);
    EXPECT_EQ(history.after(2 * epoch).trained, epoch - 16)
        << "the second epoch brings nothing new for certain";
}

TEST(TrainingHistory, AnotherOrderOrSplitIsRememberedForGood) {
    const RunSetup run = tiny_run();
    const Observers first = of_new_run(run, 10);
    EXPECT_THAT(leg(run, 10, first).why_order_unknown(), IsEmpty());
    const auto expect_off = [&](const char* change, const char* order, const auto& held_out) {
        SCOPED_TRACE(change);
        const RunSetup changed = tiny_run({change});
        const TrainingHistory other = leg(changed, 10, first);
        const TrainingHistory on = leg(changed, 11, other.observers(11)),
                              back = leg(run, 11, other.observers(11));
        for (const TrainingHistory* history : {&other, &on, &back}) {
            EXPECT_THAT(history->why_order_unknown(), HasSubstr(order));
            EXPECT_THAT(history->why_not_held_out(), held_out);
        }
    };
    for (const char* change : {"run.seed=7", "task.data.training_share=0.5"})
        expect_off(change, "in another order", IsEmpty());
    for (const char* change : {"task.data.validation=0.9", "task.data.seq_len=32"})
        expect_off(change, "with another split", HasSubstr("with another split"));
    const TrainingHistory untrained = leg(tiny_run({"task.data.validation=0.9"}), 0, of_new_run(run, 0));
    EXPECT_THAT(untrained.why_order_unknown(), IsEmpty()) << "before anything was met any data will do";
}

std::string letters(u64 seed, i64 count) {
    const Philox random(seed, "letters");
    std::string text;
    for (i64 i = 0; i < count; ++i)
        text += static_cast<char>('a' + static_cast<int>(26 * random.uniform(static_cast<u64>(i))));
    return text;
}

TEST(TrainingHistory, OtherContentOfTheSameSizeIsOtherData) {
    const testing_support::TemporaryFolder folder;
    const i64 training = 16 * 900, heldout = 16 * 100;
    const auto of_text = [&](const char* name, const std::string& text) {
        return tiny_run({"task.data.path=" + folder.write(name, text)});
    };
    const RunSetup run = of_text("a.txt", letters(1, training) + letters(2, heldout));
    const Observers first = of_new_run(run, 10);
    const RunSetup moved = of_text("b.txt", letters(1, training) + letters(2, heldout));
    EXPECT_THAT(leg(moved, 10, first).why_order_unknown(), IsEmpty()) << "the same text elsewhere";
    const std::string other_heldout = letters(1, training) + letters(3, heldout);
    EXPECT_THAT(leg(of_text("c.txt", other_heldout), 10, first).why_not_held_out(), HasSubstr("other data"));
    const std::string other_training = letters(3, training) + letters(2, heldout);
    EXPECT_THAT(leg(of_text("d.txt", other_training), 10, first).why_not_held_out(), HasSubstr("other data"));
}

TEST(TrainingHistory, RowsOfATableAreHeldOutByTheSplitsSeed) {
    const std::string root = MOESAIC_SOURCE_DIR;
    const auto digits = [&](const std::string& seed) {
        return load_run(root + "/configs/digits.yaml", {"task.data.path=" + root + "/configs/data/digits.csv",
                                                        "task.data.split_seed=" + seed});
    };
    const Observers first = of_new_run(digits("1"), 10);
    EXPECT_THAT(leg(digits("1"), 10, first).why_not_held_out(), IsEmpty());
    EXPECT_THAT(leg(digits("2"), 10, first).why_not_held_out(), HasSubstr("with another split"));
}

TEST(TrainingHistory, SaysThatNothingIsOnRecord) {
    const RunSetup run = tiny_run({"train.batch_sequences=8"});
    EXPECT_TRUE(leg(run, 10, of_new_run(run, 10)).recorded());
    for (const i64 step : {0, 10}) EXPECT_FALSE(leg(run, step, {}).recorded()) << "another program's weights";
    const auto windows = static_cast<double>(run.dataset->training_windows());
    const Observers earlier{{"generalization", {1, 0, 1, 16, windows, windows}}};
    const TrainingHistory history = leg(run, 10, earlier);
    EXPECT_FALSE(history.recorded());
    EXPECT_THAT(history.why_order_unknown(), IsEmpty()) << "as far as is known";
    expect_counts(history.after(10), 160, 160, 160);  // batches of 16
    EXPECT_FALSE(leg(run, 11, history.observers(11)).recorded()) << "it stays so";
    const Observers other_seed{{"generalization", {1, 0, 2, 8, windows, windows}}},
        other_size{{"generalization", {1, 0, 1, 8, windows, windows + 1}}};
    EXPECT_THAT(leg(run, 10, other_seed).why_order_unknown(), HasSubstr("in another order"));
    EXPECT_THAT(leg(run, 10, other_size).why_not_held_out(), HasSubstr("with another split"));
}

}  // namespace
}  // namespace moesaic
