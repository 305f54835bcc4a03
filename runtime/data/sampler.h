// The windows of a text source: which tokens belong to which training step.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/base/types.h"
#include "runtime/data/tokenizer.h"

namespace moesaic {

struct DatasetOptions {
    std::string path;       ///< a text file, or a folder with text files (see list_text_files)
    i64 seq_len = 0;        ///< tokens a sequence predicts; a window holds one more
    double validation = 0;  ///< share of each file's tokens, at its end, that is held out; in [0, 1)
};

/// All tokens of a text source in memory, cut into windows.
/// The tokens of each file are split at cut = tokens - floor(tokens * validation) into a training part and a
/// held-out part. Each part gives (part tokens - 1) / seq_len windows of seq_len + 1 tokens at stride
/// seq_len: neighbours share one token, which the first only predicts and the second only reads. No window
/// crosses a cut or a file. Windows are numbered through the files in order. Immutable after construction:
/// threads may share it.
class Dataset {
  public:
    /// Reads and tokenizes. Throws UserError where list_text_files or read_text_file do, where an option is
    /// out of range and where no file gives a training window.
    Dataset(const DatasetOptions& options, const Tokenizer& tokenizer);

    [[nodiscard]] i64 seq_len() const { return seq_len_; }
    [[nodiscard]] i64 training_windows() const { return training_.first_window.back(); }
    [[nodiscard]] i64 validation_windows() const { return validation_.first_window.back(); }
    /// Tokens of all files' parts, those that no window reaches included.
    [[nodiscard]] i64 training_tokens() const { return training_.tokens; }
    [[nodiscard]] i64 validation_tokens() const { return validation_.tokens; }

    /// Writes sequences [first, first + count) of the global batch of `step` (from 1) to `out`
    /// [count, seq_len + 1]. Sequence i of the batch is number (step - 1) * batch_sequences + i of a stream
    /// that visits every training window once an epoch, so the batch depends on (seed, step) only.
    void training_batch(u64 seed, i64 step, i64 batch_sequences, i64 first, i64 count, i32* out) const;
    /// The training window at `position` in [0, training_windows()) of the order of `epoch` (from 0).
    [[nodiscard]] i64 training_window_at(u64 seed, i64 epoch, i64 position) const;

    /// Writes the tokens of one window, numbered in file order, to `out` [seq_len + 1].
    void training_window(i64 index, i32* out) const { copy_window(training_, index, out); }
    void validation_window(i64 index, i32* out) const { copy_window(validation_, index, out); }
    /// The file (domain) that a window comes from: its path below the source's folder.
    [[nodiscard]] const std::string& training_file(i64 window) const;
    [[nodiscard]] const std::string& validation_file(i64 window) const;

    /// One line for each file that gave no training or no validation window, for the caller to log.
    [[nodiscard]] std::span<const std::string> warnings() const { return warnings_; }

  private:
    /// Holds the text itself where the tokenizer is bytewise, else the ids.
    struct File {
        std::string name;
        std::string bytes;
        std::vector<i32> ids;
        [[nodiscard]] i64 tokens() const { return static_cast<i64>(bytes.size() + ids.size()); }
    };
    /// The training parts or the held-out parts of all files.
    struct Part {
        std::vector<i64> first_token;      // by file: where the part begins in the file
        std::vector<i64> first_window{0};  // by file, and the total at the end
        i64 tokens = 0;
        [[nodiscard]] std::size_t file_of(i64 window) const;
    };

    void add_file(File file, double validation);
    i64 add_part(Part& part, i64 begin, i64 end) const;
    void copy_window(const Part& part, i64 window, i32* out) const;

    i64 seq_len_;
    std::vector<File> files_;
    Part training_;
    Part validation_;
    std::vector<std::string> warnings_;
};

}  // namespace moesaic
