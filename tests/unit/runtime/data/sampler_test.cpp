// Dataset against a slow obvious oracle: windows, held-out share, batches, epochs, errors.
#include "runtime/data/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "runtime/data/permutation.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/data/temporary_folder.h"

namespace moesaic {
namespace {

using testing_support::TemporaryFolder;
using testing_support::user_error_of;
using Window = std::vector<i32>;

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

/// Two bytes make one token: a tokenizer whose ids do not fit the text's own bytes.
class PairTokenizer final : public Tokenizer {
  public:
    [[nodiscard]] i64 vocabulary_size() const override { return 65536; }
    [[nodiscard]] std::vector<i32> encode(std::string_view text) const override {
        std::vector<i32> tokens;
        for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
            tokens.push_back(static_cast<unsigned char>(text[i]) * 256 +
                             static_cast<unsigned char>(text[i + 1]));
        }
        return tokens;
    }
    [[nodiscard]] std::string decode(std::span<const i32>) const override { return ""; }
};

struct Oracle {
    std::vector<Window> training, validation;
    std::vector<std::string> training_files, validation_files;
};

struct NamedText {
    std::string name, text;
};

/// The definition, word by word: a window starts at each multiple of seq_len where seq_len + 1 tokens remain.
Oracle oracle_of(const std::vector<NamedText>& texts, const Tokenizer& tokenizer, i64 seq_len, double share) {
    Oracle oracle;
    for (const NamedText& file : texts) {
        const std::vector<i32> all = tokenizer.encode(file.text);
        const i64 held_out = static_cast<i64>(static_cast<double>(all.size()) * share);
        const std::vector<i32> head(all.begin(), all.end() - held_out), tail(all.end() - held_out, all.end());
        const auto cut = [&](const std::vector<i32>& part, auto& windows, auto& files) {
            for (auto at = part.begin(); part.end() - at >= seq_len + 1; at += seq_len) {
                windows.emplace_back(at, at + seq_len + 1);
                files.push_back(file.name);
            }
        };
        cut(head, oracle.training, oracle.training_files);
        cut(tail, oracle.validation, oracle.validation_files);
    }
    return oracle;
}

std::string text_of(std::size_t bytes, u64 seed) {
    std::string text;
    const Philox random(seed, "text");
    for (u64 i = 0; i < bytes; ++i) text.push_back(static_cast<char>(random.bits(i) & 0xFF));
    return text;
}

std::vector<NamedText> four_texts() {
    return {{"a.txt", text_of(203, 1)},
            {"b/c.txt", text_of(97, 2)},
            {"d.txt", text_of(9, 3)},
            {"e.txt", text_of(170, 4)}};
}

void write_all(const TemporaryFolder& folder, const std::vector<NamedText>& texts) {
    for (const NamedText& file : texts) folder.write(file.name, file.text);
}

Window training_window(const Dataset& dataset, i64 index) {
    Window window(static_cast<std::size_t>(dataset.seq_len() + 1));
    dataset.training_window(index, window.data());
    return window;
}

std::vector<i32> batch_of(const Dataset& dataset, u64 seed, i64 step, i64 batch, i64 first, i64 count) {
    std::vector<i32> out(static_cast<std::size_t>(count * (dataset.seq_len() + 1)), -1);
    dataset.training_batch(seed, step, batch, first, count, out.data());
    return out;
}

void expect_equals_oracle(const Tokenizer& tokenizer, i64 seq_len, double share) {
    SCOPED_TRACE(
        fmt::format("vocabulary {} seq_len {} share {}", tokenizer.vocabulary_size(), seq_len, share));
    const TemporaryFolder folder;
    write_all(folder, four_texts());
    const Dataset dataset({folder.path(), seq_len, share}, tokenizer);
    const Oracle oracle = oracle_of(four_texts(), tokenizer, seq_len, share);
    ASSERT_EQ(dataset.training_windows(), static_cast<i64>(oracle.training.size()));
    ASSERT_EQ(dataset.validation_windows(), static_cast<i64>(oracle.validation.size()));
    for (i64 i = 0; i < dataset.training_windows(); ++i) {
        EXPECT_EQ(training_window(dataset, i), oracle.training[static_cast<std::size_t>(i)]);
        EXPECT_EQ(dataset.training_file(i), oracle.training_files[static_cast<std::size_t>(i)]);
    }
    for (i64 i = 0; i < dataset.validation_windows(); ++i) {
        Window window(static_cast<std::size_t>(seq_len + 1));
        dataset.validation_window(i, window.data());
        EXPECT_EQ(window, oracle.validation[static_cast<std::size_t>(i)]);
        EXPECT_EQ(dataset.validation_file(i), oracle.validation_files[static_cast<std::size_t>(i)]);
    }
}

TEST(Dataset, WindowsEqualTheOracle) {
    for (const i64 seq_len : {1, 2, 3, 4, 7, 8, 9, 16, 50}) {
        for (const double share : {0.0, 0.1, 0.25, 0.5, 0.7}) {
            expect_equals_oracle(*make_tokenizer("bytes"), seq_len, share);
            if (seq_len < 30) expect_equals_oracle(PairTokenizer(), seq_len, share);
        }
    }
}

TEST(Dataset, HeldOutTokensAreNeverTrainedOn) {
    const TemporaryFolder folder;
    std::string text(100, 'x');
    text.replace(75, 25, std::string(25, 'y'));
    folder.write("a.txt", text);
    const Dataset dataset({folder.path(), 5, 0.25}, *make_tokenizer("bytes"));
    EXPECT_EQ(dataset.training_tokens(), 75);
    EXPECT_EQ(dataset.validation_tokens(), 25);
    EXPECT_EQ(dataset.training_windows(), 14);  // (75 - 1) / 5
    EXPECT_EQ(dataset.validation_windows(), 4);
    for (i64 i = 0; i < 14; ++i) EXPECT_EQ(training_window(dataset, i), Window(6, 'x'));
    for (i64 i = 0; i < 4; ++i) {
        Window window(6);
        dataset.validation_window(i, window.data());
        EXPECT_EQ(window, Window(6, 'y'));
    }
}

TEST(Dataset, BatchesEqualTheOracleOverSeveralEpochs) {
    const TemporaryFolder folder;
    write_all(folder, four_texts());
    const auto tokenizer = make_tokenizer("bytes");
    const Dataset dataset({folder.path(), 8, 0.25}, *tokenizer);
    const Oracle oracle = oracle_of(four_texts(), *tokenizer, 8, 0.25);
    const i64 windows = dataset.training_windows();
    std::vector<Window> stream;  // every epoch written out
    for (i64 epoch = 0; epoch < 4; ++epoch) {
        const KeyedPermutation order(windows, 11, "epoch " + std::to_string(epoch));
        for (i64 i = 0; i < windows; ++i) {
            EXPECT_EQ(dataset.training_sequence(11, epoch * windows + i), order(i));
            stream.push_back(oracle.training[static_cast<std::size_t>(order(i))]);
        }
    }
    for (const i64 batch : {i64{1}, i64{5}, i64{7}, windows, 2 * windows + 1}) {
        for (i64 step = 1; step * batch <= 4 * windows; ++step) {
            std::vector<i32> expected;
            for (i64 i = (step - 1) * batch; i < step * batch; ++i) {
                const Window& window = stream[static_cast<std::size_t>(i)];
                expected.insert(expected.end(), window.begin(), window.end());
            }
            ASSERT_EQ(batch_of(dataset, 11, step, batch, 0, batch), expected) << batch << " step " << step;
        }
    }
}

TEST(Dataset, BatchDoesNotDependOnHowItIsSliced) {
    const TemporaryFolder folder;
    write_all(folder, four_texts());
    const Dataset dataset({folder.path(), 8, 0.25}, *make_tokenizer("bytes"));
    const i64 batch = dataset.training_windows() + 5;  // every batch spans two epochs
    for (i64 step = 1; step < 5; ++step) {
        const auto whole = batch_of(dataset, 3, step, batch, 0, batch);
        for (const i64 slice : {1, 2, 3, 7}) {
            std::vector<i32> joined;
            for (i64 first = 0; first < batch; first += slice) {
                const auto part = batch_of(dataset, 3, step, batch, first, std::min(slice, batch - first));
                joined.insert(joined.end(), part.begin(), part.end());
            }
            EXPECT_EQ(joined, whole) << "step " << step << " slice " << slice;
        }
        EXPECT_NE(whole, batch_of(dataset, 4, step, batch, 0, batch));
        EXPECT_TRUE(batch_of(dataset, 3, step, batch, batch, 0).empty());
    }
}

TEST(Dataset, EveryEpochVisitsEveryWindowOnceInAnotherOrder) {
    const TemporaryFolder folder;
    write_all(folder, four_texts());
    const Dataset dataset({folder.path(), 8, 0.25}, *make_tokenizer("bytes"));
    const i64 windows = dataset.training_windows();
    std::set<std::vector<i32>> orders;
    for (i64 epoch = 0; epoch < 5; ++epoch) {  // one sequence a step: the stream itself
        std::multiset<Window> seen;
        std::vector<i32> order;
        for (i64 i = 0; i < windows; ++i) {
            const Window window = batch_of(dataset, 9, epoch * windows + i + 1, 1, 0, 1);
            seen.insert(window);
            order.insert(order.end(), window.begin(), window.end());
        }
        std::multiset<Window> all;
        for (i64 i = 0; i < windows; ++i) all.insert(training_window(dataset, i));
        EXPECT_EQ(seen, all) << "epoch " << epoch;
        orders.insert(order);
    }
    EXPECT_EQ(orders.size(), 5u);
}

TEST(Dataset, EmptyAndShortFilesOfAFolderAreWarnings) {
    const TemporaryFolder folder;
    folder.write("a.txt", text_of(100, 1));
    folder.write("b_empty.txt", "");
    folder.write("c_short.txt", "12345678");
    folder.write("d_no_validation.txt", text_of(60, 2));
    folder.write("e.txt", text_of(100, 3));
    const Dataset dataset({folder.path(), 8, 0.1}, *make_tokenizer("bytes"));
    ASSERT_EQ(dataset.warnings().size(), 3u);
    EXPECT_EQ(dataset.warnings()[0], "b_empty.txt: the file is empty and gives no window");
    EXPECT_HAS(dataset.warnings()[1], "c_short.txt: gives no training or validation window; it has 8 tokens");
    EXPECT_HAS(dataset.warnings()[2],
               "d_no_validation.txt: gives no validation window; it has 54 tokens for "
               "training and 6 held out, a window takes 9; use a shorter seq_len");
    EXPECT_EQ(dataset.validation_windows(), 2);
    EXPECT_EQ(dataset.validation_file(1), "e.txt");
    EXPECT_EQ(dataset.training_file(dataset.training_windows() - 1), "e.txt");
    const Dataset without({folder.path(), 8, 0.0}, *make_tokenizer("bytes"));  // none asked for: none missing
    EXPECT_EQ(without.warnings().size(), 2u);
    EXPECT_EQ(without.validation_windows(), 0);
}

TEST(Dataset, UserErrorsSayWhatWouldBeRight) {
    const TemporaryFolder folder;
    const auto tokenizer = make_tokenizer("bytes");
    const auto error = [&](const std::string& path, i64 seq_len, double share) {
        return user_error_of([&] { const Dataset dataset({path, seq_len, share}, *tokenizer); });
    };
    EXPECT_HAS(error(folder.path(), 8, 0.1), "the folder holds no data file");
    EXPECT_HAS(error(folder.path() + "/missing", 8, 0.1), "no such file or folder");
    EXPECT_HAS(error(folder.write("empty.txt", ""), 8, 0.1), "the file is empty");
    const std::string path = folder.write("short.txt", "0123456789");
    const std::string text = error(folder.path(), 16, 0.25);
    EXPECT_HAS(text, "a window takes 17 tokens (seq_len 16 and one more)");
    EXPECT_HAS(text, "has 10 and holds out 2 of them; use a shorter seq_len or more text");
    EXPECT_HAS(error(path, 0, 0.1), "seq_len: 0 is no length");
    EXPECT_HAS(error(path, 4, 1.0), "validation: 1 is no share");
    EXPECT_HAS(error(path, 4, -0.1), "validation: -0.1 is no share");
    EXPECT_HAS(error(path, 4, std::nan("")), "validation: nan is no share");
    const Dataset exactly({path, 9, 0}, *tokenizer);  // the longest sequence that this file gives
    EXPECT_EQ(exactly.training_windows(), 1);
    EXPECT_HAS(error(path, 10, 0), "no file gives a training window");
}

TEST(Dataset, LineEndsNulAndUtf8PassUnchanged) {
    const TemporaryFolder folder;
    const std::string text("a\r\n\0\xC3\xA9\xFF\xEF\xBB\xBF\x1A", 11);
    const Dataset dataset({folder.write("a.txt", text), 10, 0}, *make_tokenizer("bytes"));
    EXPECT_EQ(training_window(dataset, 0),
              (Window{'a', 13, 10, 0, 0xC3, 0xA9, 0xFF, 0xEF, 0xBB, 0xBF, 0x1A}));
}

TEST(Dataset, FourTextsLoad) {
    const Dataset dataset({MOESAIC_SOURCE_DIR "/configs/data/quad", 1, 0.1}, *make_tokenizer("bytes"));
    EXPECT_EQ(dataset.training_tokens() + dataset.validation_tokens(), 1036942);
    EXPECT_EQ(dataset.validation_tokens(), 26213 + 26208 + 26211 + 25060);
    EXPECT_TRUE(dataset.warnings().empty());
    std::set<std::string> files;
    std::set<i32> bytes;
    for (i64 i = 0; i < dataset.training_windows(); ++i) {
        files.insert(dataset.training_file(i));
        i32 window[2];
        dataset.training_window(i, window);
        bytes.insert({window[0], window[1]});
    }
    EXPECT_EQ(files, (std::set<std::string>{"opticks.txt", "sea-novel.txt", "set.mm.txt", "speeches.txt"}));
    EXPECT_EQ(bytes.size(), 93u);
}

}  // namespace
}  // namespace moesaic
