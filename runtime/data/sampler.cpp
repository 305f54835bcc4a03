// Cutting files into windows, ordering them by epoch and source.
#include "runtime/data/sampler.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

#include "runtime/base/error.h"

namespace moesaic {
namespace {

constexpr std::size_t kMostDomains = 64;  // more held-out losses than this nobody reads
constexpr int kMostMistakes = 20;

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

TokenFileOptions file_options(const SourceOptions& source, const DatasetOptions& options,
                              const Tokenizer& tokenizer) {
    TokenFileOptions file;
    file.tokenizer = &tokenizer;
    file.vocabulary = options.vocabulary > 0 ? options.vocabulary : tokenizer.vocabulary_size();
    file.text_key = source.text_key;
    file.token_type = source.token_type;
    file.end_of_document = resolve_end_of_document(source.end_of_document, tokenizer);
    if (file.end_of_document && *file.end_of_document >= file.vocabulary)
        throw UserError(
            fmt::format("{}: end_of_document {} is outside of the vocabulary of {}; set it to an id "
                        "below that, or to none",
                        source.path, *file.end_of_document, file.vocabulary));
    return file;
}

}  // namespace

std::string source_name(const SourceOptions& source) {
    if (!source.name.empty()) return source.name;
    const std::filesystem::path path(source.path);
    const std::filesystem::path last = path.has_filename() ? path : path.parent_path();  // "folder/"
    return last.stem().string();
}

Dataset::Dataset(const DatasetOptions& options, const Tokenizer& tokenizer)
    : seq_len_(options.seq_len), vocabulary_(options.vocabulary) {
    check_options(options);
    std::string mistakes;
    std::vector<double> weights;
    for (const SourceOptions& source : options.sources) {
        if (source.weight == 0) continue;
        add_source(source, options, tokenizer, mistakes);
        weights.push_back(source.weight);
    }
    if (!mistakes.empty()) throw UserError(mistakes);
    MOESAIC_ASSERT(!weights.empty(), "no source of positive weight among {}", options.sources.size());
    blend_ = std::make_unique<Blend>(weights);
    name_domains();
}

void Dataset::add_source(const SourceOptions& source, const DatasetOptions& options,
                         const Tokenizer& tokenizer, std::string& mistakes) {
    const i64 first_window = training_windows();
    const std::size_t first_file = files_.size();
    int count = 0;
    const auto add_mistake = [&](const std::string& text) {
        if (++count <= kMostMistakes) mistakes += (mistakes.empty() ? "" : "\n") + text;
    };
    sources_.push_back({source_name(source), first_window, 0});
    try {
        const TokenFileOptions file_choices = file_options(source, options, tokenizer);
        for (const DataFile& file : list_data_files(source.path, source.format)) {
            try {
                add_file(file.name, open_token_file(file, file_choices), options.validation);
            } catch (const UserError& error) {
                add_mistake(error.what());
            }
        }
    } catch (const UserError& error) {
        add_mistake(error.what());
    }
    if (count > kMostMistakes) mistakes += fmt::format("\n... and {} more files", count - kMostMistakes);
    sources_.back().windows = training_windows() - first_window;
    if (count > 0 || sources_.back().windows > 0) return;
    i64 longest = 0;
    for (std::size_t i = first_file; i < files_.size(); ++i)
        longest = std::max(longest, files_[i].tokens->tokens());
    add_mistake(
        fmt::format("{}: no file gives a training window; a window takes {} tokens (seq_len {} and one "
                    "more), the longest file has {} and holds out {} of them; use a shorter seq_len or more "
                    "text",
                    source.path, seq_len_ + 1, seq_len_, longest,
                    static_cast<i64>(std::floor(static_cast<double>(longest) * options.validation))));
}

void Dataset::add_file(const std::string& name, std::unique_ptr<TokenFile> file, double validation) {
    const i64 tokens = file->tokens();
    const i64 cut = tokens - static_cast<i64>(std::floor(static_cast<double>(tokens) * validation));
    const bool trains = add_part(training_, 0, cut) > 0;
    const bool validates = add_part(validation_, cut, tokens) > 0;
    const bool lacks_validation = validation > 0 && !validates;
    if (tokens == 0) {
        warnings_.push_back(fmt::format("{}: the file is empty and gives no window", name));
    } else if (!trains || lacks_validation) {
        const char* lacking = trains             ? "validation"
                              : lacks_validation ? "training or validation"
                                                 : "training";
        warnings_.push_back(fmt::format(
            "{}: gives no {} window; it has {} tokens for training and {} held out, a window takes {}; use a "
            "shorter seq_len or a longer file",
            name, lacking, cut, tokens - cut, seq_len_ + 1));
    }
    const i64 before = files_.empty() ? 0 : files_.back().first_token + files_.back().tokens->tokens();
    files_.push_back({name, sources_.size() - 1, before, std::move(file)});
}

i64 Dataset::add_part(Part& part, i64 begin, i64 end) const {
    const i64 windows = std::max<i64>(0, end - begin - 1) / seq_len_;
    part.first_token.push_back(begin);
    part.first_window.push_back(part.first_window.back() + windows);
    part.tokens += end - begin;
    return windows;
}

void Dataset::name_domains() {
    if (sources_.size() > 1) {
        for (const Source& source : sources_) domains_.push_back(source.name);
    } else if (files_.size() <= kMostDomains) {
        for (const File& file : files_) domains_.push_back(file.name);
    }
}

std::size_t Dataset::domain_of_validation(i64 window) const {
    const std::size_t file = validation_.file_of(window);
    return sources_.size() > 1 ? files_[file].source : file;
}

std::size_t Dataset::Part::file_of(i64 window) const {
    MOESAIC_ASSERT(0 <= window && window < first_window.back(), "window {} of {}", window,
                   first_window.back());
    // The last file that begins at or before the window: files without windows begin where the next one does.
    const auto after = std::upper_bound(first_window.begin(), first_window.end(), window);
    return static_cast<std::size_t>(after - first_window.begin()) - 1;
}

void Dataset::copy_window(const Part& part, i64 window, WindowBuffer out) const {
    const std::size_t index = part.file_of(window);
    const TokenFile& file = *files_[index].tokens;
    const i64 begin = part.first_token[index] + (window - part.first_window[index]) * seq_len_;
    file.read(begin, seq_len_ + 1, out.tokens);
    if (out.documents == nullptr) return;
    std::vector<i64> starts;
    file.document_starts(begin, seq_len_ + 1, starts);
    starts.push_back(begin + seq_len_ + 1);
    std::fill(out.documents, out.documents + (starts.front() - begin), 0);
    for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
        std::fill(out.documents + (starts[i] - begin), out.documents + (starts[i + 1] - begin),
                  static_cast<i32>(starts[i] - begin));
    }
}

std::vector<WindowDocument> Dataset::documents_of(DataPart which, i64 window) const {
    const bool trains = which == DataPart::training;
    const Part& part = trains ? training_ : validation_;
    const std::size_t index = part.file_of(window);
    const File& file = files_[index];
    const i64 part_begin = part.first_token[index],
              part_end = trains ? validation_.first_token[index] : file.tokens->tokens();
    const i64 windows_before = part.first_window[index],
              windows = part.first_window[index + 1] - windows_before;
    // The window's targets are tokens [begin, end).
    const i64 begin = part_begin + (window - windows_before) * seq_len_ + 1, end = begin + seq_len_;
    const auto window_of = [&](i64 target) {
        return windows_before + std::clamp<i64>((target - part_begin - 1) / seq_len_, 0, windows - 1);
    };
    std::vector<i64> starts{begin};
    file.tokens->document_starts(begin + 1, seq_len_ - 1, starts);
    starts.push_back(end);
    std::vector<WindowDocument> documents;
    for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
        const bool inside = i > 0 && i + 2 < starts.size();  // begins and ends here
        const auto range =
            inside ? DocumentRange{starts[i], starts[i + 1]} : file.tokens->document_around(starts[i]);
        if (!range) continue;
        WindowDocument document;
        document.document = file.first_token + range->begin;
        document.first_target = starts[i] - begin;
        document.targets = starts[i + 1] - starts[i];
        document.first_window = window_of(std::max(range->begin, part_begin));
        document.last_window = window_of(std::min(range->end, part_end) - 1);
        document.whole = range->begin >= begin && range->end <= end;
        document.crosses_cut = range->begin < part_begin || range->end > part_end;
        documents.push_back(document);
    }
    return documents;
}

const std::string& Dataset::training_file(i64 window) const {
    return files_[training_.file_of(window)].name;
}

const std::string& Dataset::validation_file(i64 window) const {
    return files_[validation_.file_of(window)].name;
}

i64 Dataset::training_sequence(u64 seed, i64 number) const {
    const Blend::Draw draw = blend_->draw(seed, number);
    const Source& source = sources_[draw.source];
    const KeyedPermutation order = order_of(seed, draw.source, draw.ordinal / source.windows);
    return source.first_window + order(draw.ordinal % source.windows);
}

KeyedPermutation Dataset::order_of(u64 seed, std::size_t source, i64 epoch) const {
    const std::string name = sources_.size() > 1 ? fmt::format("source {} epoch {}", source, epoch)
                                                 : fmt::format("epoch {}", epoch);
    return {sources_[source].windows, seed, name};
}

i64 Dataset::first_epoch_sequences(u64 seed) const {
    i64 first = std::numeric_limits<i64>::max();
    for (std::size_t source = 0; source < sources_.size(); ++source) {
        const auto number = blend_->first_number_from(seed, {source, sources_[source].windows});
        if (number) first = std::min(first, *number);
    }
    return first;
}

i64 Dataset::first_number_of(u64 seed, i64 window) const {
    const std::size_t index = files_[training_.file_of(window)].source;
    const Source& source = sources_[index];
    const Blend::Draw draw{index, order_of(seed, index, 0).position_of(window - source.first_window)};
    const auto first = blend_->first_number_from(seed, draw);
    if (!first) return std::numeric_limits<i64>::max();  // a source without a share that counts
    i64 number = *first;
    // Ordinals do not ascend within a block.
    for (Blend::Draw found = blend_->draw(seed, number);
         found.source != index || found.ordinal != draw.ordinal;)
        found = blend_->draw(seed, ++number);
    return number;
}

std::vector<WindowDocument> Dataset::documents_first_met(u64 seed, i64 number) const {
    const i64 window = training_sequence(seed, number);
    std::vector<WindowDocument> documents = documents_of(DataPart::training, window);
    std::erase_if(documents, [&](const WindowDocument& document) {
        for (i64 other = document.first_window; other <= document.last_window; ++other) {
            if (other != window && first_number_of(seed, other) < number) return true;
        }
        return false;
    });
    return documents;
}

std::string Dataset::unit() const {
    return fmt::format("windows of {} tokens", seq_len_);
}

std::string Dataset::fingerprint() const {
    std::string text = fmt::format("{} {} {} {}", training_windows(), validation_windows(), training_tokens(),
                                   validation_tokens());
    std::vector<i32> window(static_cast<std::size_t>(seq_len_ + 1));
    for (const i64 index : {i64{0}, training_windows() / 2, training_windows() - 1}) {
        training_window(index, window.data());
        text += fmt::format(" {}", fmt::join(window, ","));
    }
    return text;
}

std::vector<std::string> Dataset::files() const {
    std::vector<std::string> lines;
    for (const File& file : files_)
        lines.push_back(
            fmt::format("{}: {}: {}", file.name, file.tokens->layout(), file.tokens->documents_by()));
    return lines;
}

}  // namespace moesaic
