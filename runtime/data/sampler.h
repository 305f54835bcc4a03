// The windows of training data: which tokens belong to which training step.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/types.h"
#include "runtime/data/blend.h"
#include "runtime/data/permutation.h"
#include "runtime/data/task_data.h"
#include "runtime/data/token_file.h"
#include "runtime/data/tokenizer.h"

namespace moesaic {

/// One source of a blend.
struct SourceOptions {
    std::string path;   ///< a file, a folder or a Megatron prefix (see list_data_files)
    std::string name;   ///< empty: the path's last part without ending
    double weight = 1;  ///< its share of the sequences, relative to the other sources; 0: left out
    std::string format = "auto";
    std::string text_key = "text";
    std::string token_type = "auto";
    std::string end_of_document = "auto";  ///< see resolve_end_of_document
};

/// The source's name, or the last part of its path without ending.
[[nodiscard]] std::string source_name(const SourceOptions& source);

struct DatasetOptions {
    DatasetOptions() = default;
    /// A single source that is read as it is.
    DatasetOptions(std::string path, i64 tokens_of_sequence, double held_out_share)
        : seq_len(tokens_of_sequence), validation(held_out_share) {
        sources.emplace_back().path = std::move(path);
    }

    std::vector<SourceOptions> sources;
    i64 seq_len = 0;        ///< tokens a sequence predicts; a window holds one more
    double validation = 0;  ///< share of each file's tokens, at its end, that is held out; in [0, 1)
    i64 vocabulary = 0;     ///< ids lie in [0, vocabulary); 0: the tokenizer's
};

/// All training data, cut into windows.
/// The tokens of each file are split at cut = tokens - floor(tokens * validation) into a training part and a
/// held-out part. Each part gives (part tokens - 1) / seq_len windows of seq_len + 1 tokens at stride
/// seq_len: neighbours share one token, which the first only predicts and the second only reads. No window
/// crosses a cut or a file. Windows are numbered through the files of all sources in order. Immutable after
/// construction: threads may share it.
class Dataset final : public TaskData {
  public:
    /// Opens all files, and tokenizes text. Throws UserError, with the mistakes of all files, where a file
    /// cannot be read, an option is out of range or a source gives no training window.
    Dataset(const DatasetOptions& options, const Tokenizer& tokenizer);

    [[nodiscard]] i64 seq_len() const { return seq_len_; }
    [[nodiscard]] SampleShape shape() const override {
        return {.seq_len = seq_len_, .vocabulary = vocabulary_};
    }
    [[nodiscard]] i64 training_windows() const override { return training_.first_window.back(); }
    [[nodiscard]] i64 validation_windows() const override { return validation_.first_window.back(); }
    /// Tokens of all files' parts, those that no window reaches included.
    [[nodiscard]] i64 training_tokens() const { return training_.tokens; }
    [[nodiscard]] i64 validation_tokens() const { return validation_.tokens; }

    /// The blend says which source a sequence comes from; each source visits its windows once an epoch, in an
    /// order of its own for every epoch.
    [[nodiscard]] i64 training_sequence(u64 seed, i64 number) const override;
    [[nodiscard]] i64 first_epoch_sequences(u64 seed) const override;

    /// Windows are numbered in file order.
    void training_window(i64 index, WindowBuffer out) const override { copy_window(training_, index, out); }
    void validation_window(i64 index, WindowBuffer out) const override {
        copy_window(validation_, index, out);
    }
    /// The file that a window comes from: its path below the source's folder.
    [[nodiscard]] const std::string& training_file(i64 window) const;
    [[nodiscard]] const std::string& validation_file(i64 window) const;

    [[nodiscard]] std::vector<WindowDocument> documents_of(DataPart part, i64 window) const override;
    [[nodiscard]] std::vector<WindowDocument> documents_first_met(u64 seed, i64 number) const override;

    /// What held-out losses are told apart by: the sources of a blend, or the files of a single source where
    /// there are at most 64; else nothing.
    [[nodiscard]] std::span<const std::string> domains() const override { return domains_; }
    /// The index in domains() of a held-out window; domains() is not empty.
    [[nodiscard]] std::size_t domain_of_validation(i64 window) const override;

    /// One line for each file that gave no training or no validation window, for the caller to log.
    [[nodiscard]] std::span<const std::string> warnings() const override { return warnings_; }
    /// One line for each file: its layout, and what is known of its documents.
    [[nodiscard]] std::vector<std::string> files() const override;
    [[nodiscard]] std::string unit() const override;
    [[nodiscard]] std::string fingerprint() const override;

  private:
    struct File {
        std::string name;
        std::size_t source = 0;
        i64 first_token = 0;  // among the tokens of all files
        std::unique_ptr<TokenFile> tokens;
    };
    struct Source {
        std::string name;
        i64 first_window = 0, windows = 0;  // of the training part
    };
    /// The training parts or the held-out parts of all files.
    struct Part {
        std::vector<i64> first_token;      // by file: where the part begins in the file
        std::vector<i64> first_window{0};  // by file, and the total at the end
        i64 tokens = 0;
        [[nodiscard]] std::size_t file_of(i64 window) const;
    };

    void add_source(const SourceOptions& source, const DatasetOptions& options, const Tokenizer& tokenizer,
                    std::string& mistakes);
    void add_file(const std::string& name, std::unique_ptr<TokenFile> tokens, double validation);
    i64 add_part(Part& part, i64 begin, i64 end) const;
    void name_domains();
    /// The epoch's order of a source's windows.
    [[nodiscard]] KeyedPermutation order_of(u64 seed, std::size_t source, i64 epoch) const;
    /// When training comes to a window for the first time.
    [[nodiscard]] i64 first_number_of(u64 seed, i64 window) const;
    void copy_window(const Part& part, i64 window, WindowBuffer out) const;

    i64 seq_len_, vocabulary_;
    std::vector<File> files_;
    std::vector<Source> sources_;
    std::unique_ptr<Blend> blend_;
    Part training_;
    Part validation_;
    std::vector<std::string> domains_;
    std::vector<std::string> warnings_;
};

}  // namespace moesaic
