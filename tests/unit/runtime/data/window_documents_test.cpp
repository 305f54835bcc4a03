// Which documents the targets of a window belong to, and which of them training has not met, against an
// oracle that goes through all tokens.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "runtime/base/philox.h"
#include "runtime/data/sampler.h"
#include "tests/unit/runtime/data/temporary_folder.h"

namespace moesaic {
namespace {

using namespace testing_support;

constexpr i64 kSeqLen = 16;
constexpr double kValidation = 0.3;

struct WrittenFile {
    std::string name, text;
    std::vector<i64>
        document_of;  // by token, as everywhere: the document's first token among all files' tokens
};

/// `count` documents of 1 to `longest` letters, each with the 0 that ends it.
WrittenFile written(const std::string& name, i64 count, i64 longest, i64 tokens_before, u64 seed) {
    WrittenFile file{name, "", {}};
    const Philox random(seed, name);
    for (i64 i = 0; i < count; ++i) {
        const auto length =
            1 + static_cast<i64>(random.uniform(static_cast<u64>(i)) * static_cast<double>(longest));
        const i64 first = tokens_before + std::ssize(file.document_of);
        file.text += "{\"text\": \"" + std::string(static_cast<std::size_t>(length), 'a') + "\"}\n";
        file.document_of.insert(file.document_of.end(), static_cast<std::size_t>(length + 1), first);
    }
    return file;
}

class WindowDocuments : public testing::Test {
  protected:
    void write(const std::vector<std::pair<i64, i64>>& counts_and_lengths) {
        i64 before = 0;
        for (const auto& [count, longest] : counts_and_lengths) {
            files_.push_back(
                written("f" + std::to_string(files_.size()) + ".jsonl", count, longest, before, 7));
            folder_.write(files_.back().name, files_.back().text);
            before += std::ssize(files_.back().document_of);
        }
    }
    [[nodiscard]] Dataset open() const {
        return {{folder_.path(), kSeqLen, kValidation}, *make_tokenizer("bytes")};
    }

    TemporaryFolder folder_;
    std::vector<WrittenFile> files_;
};

/// By window of a part and target: the target's document; and by document the windows and whether the cut
/// divides it.
struct PartOracle {
    std::vector<std::vector<i64>> targets;
    std::map<i64, std::set<i64>> windows;
    std::set<i64> divided;
};
PartOracle oracle_of(const std::vector<WrittenFile>& files, bool trains) {
    PartOracle oracle;
    for (const WrittenFile& file : files) {
        const auto tokens = std::ssize(file.document_of);
        const i64 cut = tokens - static_cast<i64>(static_cast<double>(tokens) * kValidation);
        const i64 begin = trains ? 0 : cut, end = trains ? cut : tokens;
        const auto document = [&](i64 token) { return file.document_of[static_cast<std::size_t>(token)]; };
        if (cut < tokens && document(cut - 1) == document(cut)) oracle.divided.insert(document(cut));
        for (i64 first = begin; first + kSeqLen + 1 <= end; first += kSeqLen) {
            std::vector<i64>& window = oracle.targets.emplace_back();
            for (i64 token = first + 1; token <= first + kSeqLen; ++token) {
                window.push_back(document(token));
                oracle.windows[document(token)].insert(std::ssize(oracle.targets) - 1);
            }
        }
    }
    return oracle;
}

TEST_F(WindowDocuments, AreThoseOfTheTokens) {
    write({{90, 12}, {25, 70}, {2, 500}, {60, 1}});
    const Dataset dataset = open();
    for (const DataPart part : {DataPart::training, DataPart::heldout}) {
        const PartOracle oracle = oracle_of(files_, part == DataPart::training);
        ASSERT_EQ(part == DataPart::training ? dataset.training_windows() : dataset.validation_windows(),
                  std::ssize(oracle.targets));
        for (i64 window = 0; window < std::ssize(oracle.targets); ++window) {
            const std::vector<i64>& targets = oracle.targets[static_cast<std::size_t>(window)];
            std::vector<i64> found;
            for (const WindowDocument& one : dataset.documents_of(part, window)) {
                EXPECT_EQ(one.first_target, std::ssize(found));
                found.insert(found.end(), static_cast<std::size_t>(one.targets), one.document);
                const std::set<i64>& windows = oracle.windows.at(one.document);
                EXPECT_EQ(one.first_window, *windows.begin());
                EXPECT_EQ(one.last_window, *windows.rbegin());
                EXPECT_EQ(one.crosses_cut, oracle.divided.contains(one.document));
                i64 length = 0;
                for (const WrittenFile& file : files_)
                    length += std::ranges::count(file.document_of, one.document);
                EXPECT_EQ(one.whole, one.targets == length) << "window " << window;
            }
            ASSERT_EQ(found, targets) << "window " << window;
        }
    }
}

TEST_F(WindowDocuments, AreMetForTheFirstTimeOnce) {
    write({{400, 12}, {100, 70}, {8, 500}});
    DatasetOptions blend("", kSeqLen, kValidation);
    blend.sources.clear();
    for (std::size_t i = 0; i < files_.size(); ++i) {
        SourceOptions& source = blend.sources.emplace_back();
        source.path = folder_.path() + "/" + files_[i].name;
        source.weight = i == 1 ? 2 : 1;
    }
    const Dataset one = open(), several(blend, *make_tokenizer("bytes"));
    for (const Dataset* dataset : {&one, &several}) {
        std::set<i64> met;
        i64 new_ones = 0;
        for (i64 number = 0; number < dataset->first_epoch_sequences(5); ++number) {
            std::vector<i64> expected, found;
            for (const WindowDocument& document :
                 dataset->documents_of(DataPart::training, dataset->training_sequence(5, number))) {
                if (met.insert(document.document).second) expected.push_back(document.document);
            }
            for (const WindowDocument& document : dataset->documents_first_met(5, number))
                found.push_back(document.document);
            ASSERT_EQ(found, expected) << "sequence " << number;
            new_ones += std::ssize(found);
        }
        EXPECT_GT(new_ones, 50);
    }
}

TEST_F(WindowDocuments, WithoutAnEndInSightAreLeftOut) {
    std::string text;
    while (std::ssize(text) < 9 * (TokenFile::kLongestSearch / 2)) text += std::string("\1\0", 2);
    const std::string path = folder_.write("long.bin", text);  // 9 million ids without an end of a document
    const Dataset dataset({path, 1024, 0}, *make_tokenizer("bytes"));
    const i64 last = dataset.training_windows() - 1;
    EXPECT_TRUE(dataset.documents_of(DataPart::training, last / 2).empty());
    EXPECT_TRUE(dataset.documents_of(DataPart::training, last).empty());
}

}  // namespace
}  // namespace moesaic
