// Cutting files into windows, ordering them by epoch.
#include "runtime/data/sampler.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/data/permutation.h"
#include "runtime/data/text_source.h"

namespace moesaic {
namespace {

KeyedPermutation epoch_order(i64 windows, u64 seed, i64 epoch) {
    return {windows, seed, fmt::format("epoch {}", epoch)};
}

void check_options(const DatasetOptions& options) {
    if (options.seq_len < 1 || options.seq_len > (i64{1} << 40)) {
        throw UserError(
            fmt::format("seq_len: {} is no length of a sequence; use 1 or more", options.seq_len));
    }
    if (!(options.validation >= 0 && options.validation < 1)) {
        throw UserError(
            fmt::format("validation: {} is no share of each file to hold out; use 0 or more and less "
                        "than 1, for example 0.1",
                        options.validation));
    }
}

}  // namespace

Dataset::Dataset(const DatasetOptions& options, const Tokenizer& tokenizer) : seq_len_(options.seq_len) {
    check_options(options);
    i64 longest = 0;
    for (const TextFile& source : list_text_files(options.path)) {
        File file{source.name, read_text_file(source.path), {}};
        if (!tokenizer.is_bytewise()) {
            file.ids = tokenizer.encode(file.bytes);
            file.bytes = std::string();
        }
        longest = std::max(longest, file.tokens());
        add_file(std::move(file), options.validation);
    }
    if (training_windows() == 0) {
        throw UserError(
            fmt::format("{}: no file gives a training window; a window takes {} tokens (seq_len {} and one "
                        "more), the longest "
                        "file has {} and holds out {} of them; use a shorter seq_len or more text",
                        options.path, seq_len_ + 1, seq_len_, longest,
                        static_cast<i64>(std::floor(static_cast<double>(longest) * options.validation))));
    }
}

void Dataset::add_file(File file, double validation) {
    const i64 tokens = file.tokens();
    const i64 cut = tokens - static_cast<i64>(std::floor(static_cast<double>(tokens) * validation));
    const bool trains = add_part(training_, 0, cut) > 0;
    const bool validates = add_part(validation_, cut, tokens) > 0;
    const bool lacks_validation = validation > 0 && !validates;
    if (tokens == 0) {
        warnings_.push_back(fmt::format("{}: the file is empty and gives no window", file.name));
    } else if (!trains || lacks_validation) {
        const char* lacking = trains             ? "validation"
                              : lacks_validation ? "training or validation"
                                                 : "training";
        warnings_.push_back(fmt::format(
            "{}: gives no {} window; it has {} tokens for training and {} held out, a window takes {}; use a "
            "shorter seq_len or a longer file",
            file.name, lacking, cut, tokens - cut, seq_len_ + 1));
    }
    files_.push_back(std::move(file));
}

i64 Dataset::add_part(Part& part, i64 begin, i64 end) const {
    const i64 windows = std::max<i64>(0, end - begin - 1) / seq_len_;
    part.first_token.push_back(begin);
    part.first_window.push_back(part.first_window.back() + windows);
    part.tokens += end - begin;
    return windows;
}

std::size_t Dataset::Part::file_of(i64 window) const {
    MOESAIC_ASSERT(0 <= window && window < first_window.back(), "window {} of {}", window,
                   first_window.back());
    // The last file that begins at or before the window: files without windows begin where the next one does.
    const auto after = std::upper_bound(first_window.begin(), first_window.end(), window);
    return static_cast<std::size_t>(after - first_window.begin()) - 1;
}

void Dataset::copy_window(const Part& part, i64 window, i32* out) const {
    const std::size_t index = part.file_of(window);
    const File& file = files_[index];
    const i64 begin = part.first_token[index] + (window - part.first_window[index]) * seq_len_;
    if (file.ids.empty()) {
        const auto first = file.bytes.begin() + begin;
        std::transform(first, first + seq_len_ + 1, out,
                       [](char byte) { return i32{static_cast<unsigned char>(byte)}; });
    } else {
        std::copy_n(file.ids.begin() + begin, seq_len_ + 1, out);
    }
}

const std::string& Dataset::training_file(i64 window) const {
    return files_[training_.file_of(window)].name;
}

const std::string& Dataset::validation_file(i64 window) const {
    return files_[validation_.file_of(window)].name;
}

i64 Dataset::training_window_at(u64 seed, i64 epoch, i64 position) const {
    return epoch_order(training_windows(), seed, epoch)(position);
}

void Dataset::training_batch(u64 seed, i64 step, i64 batch_sequences, i64 first, i64 count, i32* out) const {
    MOESAIC_ASSERT(step >= 1 && 0 <= first && 0 <= count && first + count <= batch_sequences,
                   "step {} first {} count {} batch_sequences {}", step, first, count, batch_sequences);
    const i64 windows = training_windows();
    i64 sequence = (step - 1) * batch_sequences + first;
    const i64 end = sequence + count;
    while (sequence < end) {
        const i64 epoch = sequence / windows;
        const i64 epoch_end = std::min(end, (epoch + 1) * windows);
        const KeyedPermutation order = epoch_order(windows, seed, epoch);
        for (; sequence < epoch_end; ++sequence, out += seq_len_ + 1) {
            training_window(order(sequence % windows), out);
        }
    }
}

}  // namespace moesaic
