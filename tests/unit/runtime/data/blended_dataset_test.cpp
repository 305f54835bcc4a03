// A data set of several sources: every source's own epochs, names, documents in windows.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "runtime/data/sampler.h"
#include "tests/unit/runtime/data/temporary_folder.h"
#include "tests/unit/runtime/data/token_bytes.h"

namespace moesaic {
namespace {

using namespace testing_support;

/// Windows of one letter a source: 30 of a, 7 of b, 4 of c.
struct Blended {
    TemporaryFolder folder;
    std::unique_ptr<Dataset> dataset;

    explicit Blended(const std::vector<double>& weights) {
        DatasetOptions options("", 4, 0);
        options.sources.clear();
        const i64 windows[] = {30, 7, 4};
        for (std::size_t i = 0; i < weights.size(); ++i) {
            const std::string name(1, static_cast<char>('a' + i));
            SourceOptions& source = options.sources.emplace_back();
            source.path = folder.write(name + ".txt",
                                       std::string(static_cast<std::size_t>(windows[i] * 4 + 1), name[0]));
            source.weight = weights[i];
        }
        dataset = std::make_unique<Dataset>(options, *make_tokenizer("bytes"));
    }
    [[nodiscard]] char letter(i64 number) const {
        std::vector<i32> window(5);
        dataset->training_window(dataset->training_sequence(9, number), window.data());
        return static_cast<char>(window[0]);
    }
};

TEST(BlendedDataset, NoWindowComesTwiceInTheFirstEpoch) {
    for (const std::vector<double>& weights :
         {std::vector<double>{5, 2, 1}, {1, 1, 1}, {1}, {1, 50}, {1, 0, 3}}) {
        const Blended blended(weights);
        std::set<i64> seen;
        i64 number = 0;
        while (seen.insert(blended.dataset->training_sequence(9, number)).second) ++number;
        const i64 first_epoch = blended.dataset->first_epoch_sequences(9);
        EXPECT_LE(first_epoch, number);
        EXPECT_GE(first_epoch, number - Blend::kBlock) << "and it is not given up much too soon";
        EXPECT_TRUE(weights.size() > 1 || first_epoch == 30);
    }
}

TEST(BlendedDataset, EverySourceVisitsItsWindowsOnceAnEpoch) {
    const Blended blended({5, 2, 1});
    std::map<char, std::vector<i64>> visited;
    std::map<char, i64> draws;
    for (i64 number = 0; number < 64 * 40; ++number) {
        const char letter = blended.letter(number);
        visited[letter].push_back(blended.dataset->training_sequence(9, number));
        ++draws[letter];
    }
    EXPECT_EQ(draws['a'], 64 * 40 * 5 / 8);
    for (const auto& [letter, windows] : visited) {
        // Whole epochs give every window equally often; the begun one gives each at most once more. Blocks of
        // the blend may begin an epoch before the last sequences of the one before it are due.
        std::map<i64, i64> counts;
        for (const i64 window : windows) ++counts[window];
        const i64 size = letter == 'a' ? 30 : letter == 'b' ? 7 : 4;
        EXPECT_EQ(std::ssize(counts), size) << letter;
        const i64 epochs = std::ssize(windows) / size;
        for (const auto& [window, count] : counts) {
            EXPECT_GE(count, epochs) << letter;
            EXPECT_LE(count, epochs + 1) << letter;
        }
    }
}

TEST(BlendedDataset, ASourceOfNoWeightIsNotThere) {
    const Blended blended({1, 0, 0});
    for (i64 number = 0; number < 200; ++number) EXPECT_EQ(blended.letter(number), 'a');
    EXPECT_EQ(blended.dataset->training_windows(), 30);
    TemporaryFolder folder;
    const auto tokenizer = make_tokenizer("bytes");
    const Dataset alone({blended.folder.path() + "/a.txt", 4, 0}, *tokenizer);
    for (i64 number = 0; number < 200; ++number)
        EXPECT_EQ(blended.dataset->training_sequence(3, number), alone.training_sequence(3, number));
}

TEST(BlendedDataset, DomainsAreSourcesOrFiles) {
    const TemporaryFolder folder;
    for (const char* name : {"x/1.txt", "x/2.txt", "y.v2.txt"}) folder.write(name, std::string(100, 'x'));
    const auto tokenizer = make_tokenizer("bytes");
    DatasetOptions options(folder.path() + "/x/", 4, 0.5);
    const auto names = [&] {
        const Dataset dataset(options, *tokenizer);
        std::string text;
        for (i64 i = 0; i < dataset.validation_windows(); ++i) {
            const std::string& name = dataset.domains()[dataset.domain_of_validation(i)];
            if (!text.ends_with(name)) text += " " + name;
        }
        return text;
    };
    EXPECT_EQ(names(), " 1.txt 2.txt");
    options.sources.emplace_back().path = folder.path() + "/y.v2.txt";
    EXPECT_EQ(names(), " x y.v2");
    options.sources[0].name = "books";
    EXPECT_EQ(names(), " books y.v2");
    for (int i = 0; i < 70; ++i) folder.write(fmt::format("many/{}", i), std::string(100, 'x'));
    EXPECT_TRUE(Dataset({folder.path() + "/many", 4, 0.5}, *tokenizer).domains().empty());
}

TEST(BlendedDataset, WindowsTellWhereTheirDocumentsBegin) {
    const TemporaryFolder folder;
    DatasetOptions options(folder.write("a.bin", ids({1, 0, 2, 3, 0, 4, 5, 6, 7, 8, 9, 0, 3}, 2)), 6, 0);
    const Dataset dataset(options, *make_tokenizer("bytes"));
    ASSERT_EQ(dataset.training_windows(), 2);
    std::vector<i32> tokens(14), documents(14, -1);
    const std::vector<i32> first{0, 0, 2, 2, 2, 5, 5}, second{0, 0, 0, 0, 0, 0, 6};
    dataset.training_window(0, {tokens.data(), documents.data()});
    EXPECT_EQ(std::vector<i32>(documents.begin(), documents.begin() + 7), first);
    dataset.training_window(1, {tokens.data(), documents.data()});
    EXPECT_EQ(std::vector<i32>(documents.begin(), documents.begin() + 7), second);
    dataset.training_batch(1, 1, 2, 0, 2, {tokens.data(), documents.data()});
    for (std::size_t s = 0; s < 2; ++s) {
        const bool is_first = tokens[7 * s] == 1;
        EXPECT_EQ(std::vector<i32>(documents.begin() + 7 * static_cast<i64>(s),
                                   documents.begin() + 7 * static_cast<i64>(s) + 7),
                  is_first ? first : second);
    }
}

TEST(BlendedDataset, APatternNamesItsShards) {
    const TemporaryFolder folder;
    for (const char* name : {"p_000002.bin", "p_000001.bin", "q_000001.bin"})
        folder.write(name, ids({name[0], name[7], 3, 4}, 2));
    const auto tokenizer = make_tokenizer("bytes");
    const Dataset dataset({folder.path() + "/p_*.bin", 2, 0}, *tokenizer);
    EXPECT_EQ(dataset.training_windows(), 2);
    EXPECT_EQ(dataset.training_file(0), "p_000001.bin");
    EXPECT_NE(user_error_of([&] {
                  const Dataset none({folder.path() + "/z*", 2, 0}, *tokenizer);
              }).find("z*: no file matches this pattern"),
              std::string::npos);
}

}  // namespace
}  // namespace moesaic
