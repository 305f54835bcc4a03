// Documents as units: certificates hold on a known population of documents whose tokens depend strongly on
// each other, where windows as units do not.
#include "launch/evaluation_units.h"

#include <gtest/gtest.h>

#include <numeric>

#include "runtime/base/philox.h"
#include "runtime/data/sampler.h"
#include "runtime/metrics/certificates.h"
#include "tests/unit/runtime/data/temporary_folder.h"

namespace moesaic {
namespace {

using namespace testing_support;

constexpr i64 kSeqLen = 16, kBatch = 8;
constexpr double kRisk = 0.5;  // of any token of a document that is not known
constexpr int kTrials = 120;

/// A model that is wrong at every b. A document's tokens are b with chance 0.1, or all with chance 0.9.
const LossScales kScales{16, 0.1, 1, 5};
UnitScores score(std::span<const i32> targets) {
    std::vector<double> loss, margin;
    for (const i32 token : targets) {
        loss.push_back(token == 'b' ? 2.5 : 0.1);
        margin.push_back(token == 'b' ? -1 : 1);
    }
    return score_unit(loss, margin, kScales);
}

std::string population(u64 seed, i64 documents, i64 length) {
    const Philox random(seed, "documents");
    std::string text;
    u64 drawn = 0;
    for (i64 i = 0; i < documents; ++i) {
        const double wrong = random.uniform(drawn++) < 0.5 ? 0.1 : 0.9;
        text += "{\"text\": \"";
        for (i64 t = 0; t < length; ++t) text += random.uniform(drawn++) < wrong ? 'b' : 'a';
        text += "\"}\n";
    }
    return text;
}

/// Half of the documents train, the others are held out; nothing marks their ends but the lines.
std::unique_ptr<Dataset> data_of(const TemporaryFolder& folder, u64 seed, i64 documents, i64 length) {
    DatasetOptions options(folder.write("d.jsonl", population(seed, documents, length)), kSeqLen, 0.5);
    options.sources.front().end_of_document = "none";
    return std::make_unique<Dataset>(options, *make_tokenizer("bytes"));
}

std::vector<i32> targets_of(const Dataset& data, DataPart part, i64 window) {
    std::vector<i32> tokens(kSeqLen + 1);
    part == DataPart::heldout ? data.validation_window(window, tokens.data())
                              : data.training_window(window, tokens.data());
    return {tokens.begin() + 1, tokens.end()};
}

std::vector<i64> numbers_below(i64 end) {
    std::vector<i64> numbers(static_cast<std::size_t>(end));
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
}

struct Shard {
    std::vector<UnitScores> sequences, documents;
};
Shard score_shard(const Dataset& data, DataPart part, i64 windows) {
    const std::vector<i64> numbers = numbers_below(windows);
    const DocumentUnits units = document_units(data, part, numbers);
    Shard shard;
    std::vector<UnitScores> all(units.documents.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        const std::vector<i32> targets = targets_of(data, part, numbers[i]);
        shard.sequences.push_back(score(targets));
        for (const DocumentUnits::Piece& piece : units.windows[i])
            add_piece(score(std::span(targets).subspan(static_cast<std::size_t>(piece.targets.first),
                                                       static_cast<std::size_t>(piece.targets.count))),
                      all[piece.unit]);
    }
    divide_by_targets(all);
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (!units.documents[i].crosses_cut) shard.documents.push_back(all[i]);
    }
    return shard;
}

CertificateOptions options() {
    CertificateOptions options;
    options.scales = kScales;
    options.text = true;
    return options;
}

/// Shares of trials in which a limit of the error was below the risk, and the mean limit.
struct Coverage {
    double sequences = 0, documents = 0, mean_limit = 0;
};
Coverage heldout_coverage(i64 documents, i64 length) {
    Coverage coverage;
    for (u64 seed = 0; seed < kTrials; ++seed) {
        const TemporaryFolder folder;
        const auto data = data_of(folder, seed, documents, length);
        const Shard heldout = score_shard(*data, DataPart::heldout, data->validation_windows());
        const Shard seen = score_shard(*data, DataPart::training, 64);
        const double by_sequences =
            heldout_certificates(heldout.sequences, options(), 1, seed).at("heldout").value;
        const double by_documents =
            document_certificates(heldout.documents, seen.documents, options(), 1).at("heldout").value;
        coverage.sequences += by_sequences < kRisk ? 1.0 / kTrials : 0;
        coverage.documents += by_documents < kRisk ? 1.0 / kTrials : 0;
        coverage.mean_limit += by_documents / kTrials;
    }
    return coverage;
}

TEST(DocumentUnits, HeldoutLimitsHoldWhereWindowsOfOneDocumentDepend) {
    const Coverage long_ones = heldout_coverage(200, 8 * kSeqLen), short_ones = heldout_coverage(2000, 5);
    // The first look spends half of delta 0.05.
    EXPECT_LE(long_ones.documents, 0.025);
    EXPECT_LE(short_ones.documents, 0.025);
    EXPECT_LT(long_ones.mean_limit, 0.66) << "and they say something: 100 documents";
    EXPECT_LT(short_ones.mean_limit, 0.55) << "1000 documents";
    EXPECT_GT(long_ones.sequences, 0.075) << "eight windows of one document are no eight draws";
    EXPECT_LE(short_ones.sequences, 0.025) << "windows that share a piece at their borders are nearly";
}

/// Whether the fresh-data limit was below the risk at any step of the first epoch; its last value.
struct FreshRun {
    bool exceeded = false;
    double last = 1;
};
FreshRun run_fresh(const Dataset& data, u64 seed, double documents_per_sequence) {
    const auto epoch = static_cast<double>(data.first_epoch_sequences(seed));
    PrequentialCertificate certificate(options(), documents_per_sequence * epoch,
                                       documents_per_sequence * kBatch);
    FreshRun run;
    for (i64 number = 0; number + kBatch <= data.first_epoch_sequences(seed); number += kBatch) {
        std::vector<UnitSums> batch(kBatch);
        for (i64 i = 0; i < kBatch; ++i) {
            const std::vector<i32> targets =
                targets_of(data, DataPart::training, data.training_sequence(seed, number + i));
            for (const WindowDocument& one : data.documents_first_met(seed, number + i))
                batch[static_cast<std::size_t>(i)].add(
                    score(std::span(targets).subspan(static_cast<std::size_t>(one.first_target),
                                                     static_cast<std::size_t>(one.targets))),
                    kScales);
        }
        certificate.add(batch);
        const auto bounds = certificate.bounds();
        if (bounds.empty()) continue;
        run.last = bounds.at("prequential").value;
        run.exceeded = run.exceeded || run.last < kRisk;
    }
    return run;
}

TEST(DocumentUnits, FreshLimitsHoldWhereWindowsOfOneDocumentDepend) {
    constexpr int kRuns = 60;
    int exceeded = 0;
    double last = 0;
    for (u64 seed = 0; seed < kRuns; ++seed) {
        const TemporaryFolder folder;
        const auto data = data_of(folder, seed, 600, 2 * kSeqLen);
        const FreshRun run = run_fresh(*data, seed, 0.5);
        exceeded += run.exceeded ? 1 : 0;
        last += run.last / kRuns;
    }
    EXPECT_LE(exceeded, kRuns / 20) << "delta 0.05, at all steps at once";
    EXPECT_LT(last, 0.65) << "and they say something: 300 documents";
}

TEST(DocumentUnits, CountEachDocumentOnceAndKnowThoseThatTheCutDivides) {
    const TemporaryFolder folder;
    const auto data = data_of(folder, 1, 41, 24);  // 984 tokens, of which the 492nd is within a document
    const std::vector<i64> all = numbers_below(data->validation_windows());
    const DocumentUnits units = document_units(*data, DataPart::heldout, all);
    ASSERT_EQ(units.windows.size(), all.size());
    EXPECT_EQ(std::ssize(units.documents), 21);
    EXPECT_EQ(units.fresh(), 20);
    EXPECT_TRUE(units.documents.front().crosses_cut);
    std::vector<i64> targets(units.documents.size(), 0);
    for (const auto& window : units.windows) {
        i64 at = 0;
        for (const DocumentUnits::Piece& piece : window) {
            EXPECT_EQ(piece.targets.first, at);
            at += piece.targets.count;
            targets[piece.unit] += piece.targets.count;
        }
        EXPECT_EQ(at, kSeqLen);
    }
    EXPECT_EQ(targets[0], 11) << "the cut's document has 12 tokens there, and the first is no target";
    for (std::size_t i = 1; i + 1 < targets.size(); ++i) EXPECT_EQ(targets[i], 24);
}

}  // namespace
}  // namespace moesaic
