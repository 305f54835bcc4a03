// What every task's data look like to training and evaluation: samples by number, written into host memory.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// What one sample is made of. A sample is a sequence of seq_len rows; of tables it is one row.
struct SampleShape {
    i64 seq_len = 1;
    i64 vocabulary = 0;         ///< of rows that are token ids
    i64 features = 0;           ///< of a row, the constant one included; 0: rows are token ids
    i64 outputs = 0;            ///< classes or values of a target; 0: targets are the sequence's next tokens
    bool real_targets = false;  ///< `outputs` values instead of one of so many classes
    i64 targets_at_end = 0;     ///< the last so many rows have targets; 0: all
};

/// What one sample's error is.
enum class SampleError : std::uint8_t {
    share_wrong,  ///< share of its targets that are not likelier than every other answer
    any_wrong,    ///< 1 unless all of its targets are
    distance,     ///< root of the mean squared error, in the target's unit; over samples it is squared first
};

/// Host memory for samples. Windows of a text use `tokens` and `documents`; rows of tokens with targets of
/// their own `tokens` and `targets`; rows of features `features` with `targets` or `values`.
struct WindowBuffer {
    WindowBuffer() = default;
    WindowBuffer(i32* to_tokens, i32* to_documents = nullptr)  // NOLINT(google-explicit-constructor)
        : tokens(to_tokens), documents(to_documents) {}

    i32* tokens = nullptr;  ///< [count, seq_len + 1], or [count, seq_len] with targets of their own
    /// [count, seq_len + 1] the place in its window at which the document of a token begins, 0 for one that
    /// began before the window; null where nobody asks.
    i32* documents = nullptr;
    i32* targets = nullptr;     ///< [count, seq_len]; -1: none
    float* features = nullptr;  ///< [count, seq_len, features]
    double* values = nullptr;   ///< [count, seq_len, outputs]
    i32* cells = nullptr;       ///< [count] the cell of the inputs that a sample lies in; null: nobody asks

    /// The memory from sample `number` on.
    [[nodiscard]] WindowBuffer from(i64 number, const SampleShape& shape) const;
};

/// Training samples, or held-out ones.
enum class DataPart : std::uint8_t { training, heldout };

/// What a window of text has of one document.
struct WindowDocument {
    i64 document = 0;                       ///< its number among the documents of all data; ascends with them
    i64 first_target = 0, targets = 0;      ///< its tokens are these of the window's targets
    i64 first_window = 0, last_window = 0;  ///< all windows of the part that have some of it as targets
    bool whole = false;                     ///< every token of it is a target of this window
    bool crosses_cut = false;               ///< some of it lies in the other part of the data
};

/// The samples of a task, held-out ones apart. Immutable after construction: threads may share it.
class TaskData {
  public:
    TaskData() = default;
    TaskData(const TaskData&) = delete;
    TaskData& operator=(const TaskData&) = delete;
    virtual ~TaskData() = default;

    [[nodiscard]] virtual SampleShape shape() const = 0;
    [[nodiscard]] virtual i64 training_windows() const = 0;
    [[nodiscard]] virtual i64 validation_windows() const = 0;
    /// The training sample that is number `number` (from 0) of the stream of a run with this seed.
    [[nodiscard]] virtual i64 training_sequence(u64 seed, i64 number) const = 0;
    /// How many sequences the stream begins with of which no two are the same sample.
    [[nodiscard]] virtual i64 first_epoch_sequences(u64 /*seed*/) const { return training_windows(); }
    /// The documents that the targets of a window of text belong to, in order; without those that go on for
    /// millions of tokens. Nothing where samples are no text.
    [[nodiscard]] virtual std::vector<WindowDocument> documents_of(DataPart /*part*/, i64 /*window*/) const {
        return {};
    }
    /// Of sequence `number` of the stream, which lies in the first epoch: its documents of which no earlier
    /// sequence had anything.
    [[nodiscard]] virtual std::vector<WindowDocument> documents_first_met(u64 /*seed*/,
                                                                          i64 /*number*/) const {
        return {};
    }
    /// Writes one sample to `out`.
    virtual void training_window(i64 index, WindowBuffer out) const = 0;
    virtual void validation_window(i64 index, WindowBuffer out) const = 0;
    /// Writes sequences [first, first + count) of the global batch of `step` (from 1) to `out`. Sequence i of
    /// the batch is number (step - 1) * batch_sequences + i of the stream, so the batch depends on (seed,
    /// step) only.
    void training_batch(u64 seed, i64 step, i64 batch_sequences, i64 first, i64 count,
                        WindowBuffer out) const;

    /// Held-out samples of another distribution than the training samples', behind the others: numbers from
    /// validation_windows() on. 0: the task has none.
    [[nodiscard]] virtual i64 shifted_windows() const { return 0; }

    /// What a sample scores besides its loss; `distance` is in units of distance_unit().
    [[nodiscard]] virtual SampleError error() const { return SampleError::share_wrong; }
    [[nodiscard]] virtual double distance_unit() const { return 1; }
    /// What held-out losses are told apart by; may be nothing.
    [[nodiscard]] virtual std::span<const std::string> domains() const { return {}; }
    /// The index in domains() of a held-out sample; domains() is not empty.
    [[nodiscard]] virtual std::size_t domain_of_validation(i64 /*window*/) const { return 0; }

    /// [cells, features] of what the inputs are divided by, for models with an expert a cell; may be nothing.
    [[nodiscard]] virtual std::span<const float> prototypes() const { return {}; }

    /// Several samples, for people: "windows of 256 tokens"; a row of one, shortly; and what a loss is in.
    [[nodiscard]] virtual std::string unit() const = 0;
    [[nodiscard]] virtual std::string row_name() const { return "tok"; }
    [[nodiscard]] virtual std::string loss_unit() const { return "nats/token"; }
    /// Sizes and some content, which ranks compare.
    [[nodiscard]] virtual std::string fingerprint() const = 0;
    /// One line for each oddity, for the caller to log.
    [[nodiscard]] virtual std::span<const std::string> warnings() const { return {}; }
    /// One line for each file or part.
    [[nodiscard]] virtual std::vector<std::string> files() const = 0;
};

}  // namespace moesaic
