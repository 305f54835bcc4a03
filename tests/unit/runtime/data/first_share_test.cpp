// The first share of the training data: the stream begins as the whole one's, and never leaves the share.
#include "runtime/data/first_share.h"

#include <gtest/gtest.h>

#include <set>

#include "runtime/data/sampler.h"
#include "tests/unit/runtime/data/temporary_folder.h"

namespace moesaic {
namespace {

std::unique_ptr<Dataset> windows_of(const testing_support::TemporaryFolder& folder) {
    const std::string path = folder.write("a.txt", std::string(4 * 100 + 1, 'a'));
    return std::make_unique<Dataset>(DatasetOptions(path, 4, 0), *make_tokenizer("bytes"));
}

TEST(FirstShare, BeginsAsTheWholeStreamAndComesBack) {
    const testing_support::TemporaryFolder folder;
    const auto whole = windows_of(folder);
    const FirstShare share(windows_of(folder), 0.6);
    EXPECT_EQ(share.training_windows(), 60);
    EXPECT_EQ(share.first_epoch_sequences(3), 60);
    std::vector<i64> first;
    for (i64 number = 0; number < 60; ++number) {
        first.push_back(share.training_sequence(3, number));
        EXPECT_EQ(first.back(), whole->training_sequence(3, number));
    }
    const std::set<i64> kept(first.begin(), first.end());
    for (i64 epoch = 1; epoch < 4; ++epoch) {
        std::vector<i64> later;
        for (i64 number = 60 * epoch; number < 60 * (epoch + 1); ++number)
            later.push_back(share.training_sequence(3, number));
        EXPECT_EQ(std::set<i64>(later.begin(), later.end()), kept);
        EXPECT_NE(later, first) << "in another order";
    }
    EXPECT_NE(share.fingerprint(), whole->fingerprint());
    EXPECT_EQ(FirstShare::size_of(1, 100), 100);
    EXPECT_EQ(FirstShare::size_of(1e-6, 100), 1);
}

}  // namespace
}  // namespace moesaic
