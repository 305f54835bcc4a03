// The certificates that a run prints: valid on streams whose chances are known, and the same after a resume.
#include "runtime/metrics/certificates.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/philox.h"
#include "runtime/metrics/bounds/divergence.h"
#include "runtime/metrics/explain.h"

namespace moesaic {
namespace {

CertificateOptions options_of(bool exact_errors) {
    CertificateOptions options;
    options.scales = {16, 0.1, 1, 5};
    options.exact_errors = exact_errors;
    return options;
}

/// A unit of `targets` answers of which each is wrong with chance p.
UnitScores unit_of(const Philox& random, u64 number, i64 targets, double p) {
    std::vector<double> loss, margin;
    for (i64 i = 0; i < targets; ++i) {
        const double u = random.uniform(number * 1000 + static_cast<u64>(i));
        margin.push_back(u < p ? -1 : 1);
        loss.push_back(u < p ? 2 + u : u / 2);
    }
    return score_unit(loss, margin, options_of(false).scales);
}

/// The expected smoothed bits of such an answer.
double mean_bits(double p) {
    const LossScales scales = options_of(false).scales;
    double sum = 0;
    constexpr int kPoints = 500;
    for (int i = 0; i < kPoints; ++i) {
        const double u = (i + 0.5) / kPoints;
        const std::vector<double> loss{u < p ? 2 + u : u / 2};
        sum += score_unit(loss, std::vector{1.0}, scales).of(UnitLoss::smoothed_bits) / kPoints;
    }
    return sum;
}

/// Falls as the model learns.
double chance_at(i64 step) {
    return 0.1 + 0.6 * std::exp(-static_cast<double>(step) / 40);
}

constexpr i64 kSteps = 80, kBatch = 16;

/// Of 1000 runs, those in which a bound was below the mean chance of its window's units at any step.
struct Coverage {
    int error = 0, bits = 0;
    double last_error = 0;  ///< mean over the runs of the last bound
};
Coverage run_streams(bool exact_errors, i64 targets) {
    std::vector<double> bits_at;
    for (i64 step = 0; step < kSteps; ++step) bits_at.push_back(mean_bits(chance_at(step)));
    Coverage coverage;
    for (u64 seed = 0; seed < 1000; ++seed) {
        const Philox random(seed, "units");
        PrequentialCertificate certificate(options_of(exact_errors), kSteps * kBatch, kBatch);
        bool error = false, bits = false;
        for (i64 step = 0; step < kSteps; ++step) {
            std::vector<UnitScores> units;
            for (i64 i = 0; i < kBatch; ++i)
                units.push_back(
                    unit_of(random, static_cast<u64>(step * kBatch + i), targets, chance_at(step)));
            certificate.add(units);
            const auto bounds = certificate.bounds();
            if (bounds.empty()) continue;
            const BoundResult& bound = bounds.at("prequential");
            // Window w begins at unit 64 * 2^(w-1), a multiple of the batch.
            const auto first = static_cast<i64>(4 * std::exp2(bound.details.at("window") - 1));
            const auto steps = static_cast<i64>(bound.details.at("units")) / kBatch;
            double chances = 0, mean = 0;
            for (i64 t = first; t < first + steps; ++t) {
                chances += chance_at(t) / static_cast<double>(steps);
                mean += bits_at[static_cast<std::size_t>(t)] / static_cast<double>(steps);
            }
            error = error || bound.value < chances;
            bits = bits || bounds.at("prequential_bits").value < mean;
        }
        coverage.error += error ? 1 : 0;
        coverage.bits += bits ? 1 : 0;
        coverage.last_error += certificate.bounds().at("prequential").value / 1000;
    }
    return coverage;
}

TEST(Certificates, PrequentialHoldsAtAnyStepOfDriftingStreams) {
    const Coverage averages = run_streams(false, 8), exact = run_streams(true, 1);
    for (const Coverage& coverage : {averages, exact}) {
        EXPECT_LE(coverage.error, 50) << "of 1000, delta 0.05";
        EXPECT_LE(coverage.bits, 50);
        EXPECT_LT(coverage.last_error, 0.36) << "and it says something: the chances are 0.27 on average";
    }
}

TEST(Certificates, PrequentialGoesOnFromItsState) {
    const Philox random(3, "units");
    PrequentialCertificate whole(options_of(false), 2000, kBatch), first(options_of(false), 2000, kBatch),
        second(options_of(false), 2000, kBatch);
    for (i64 step = 0; step < 60; ++step) {
        std::vector<UnitScores> units{UnitScores{}};  // one without targets does not count
        for (i64 i = 0; i < kBatch; ++i)
            units.push_back(unit_of(random, static_cast<u64>(step * kBatch + i), 4, 0.3));
        whole.add(units);
        if (step == 30) {
            EXPECT_TRUE(second.restore(first.state()));
        }
        (step < 30 ? first : second).add(units);
    }
    EXPECT_EQ(whole.units(), 60 * kBatch);
    EXPECT_EQ(second.state(), whole.state());
    EXPECT_EQ(second.bounds().at("prequential_bits").value, whole.bounds().at("prequential_bits").value);
    EXPECT_FALSE(second.restore(std::vector<double>(7, 0.0)));
    EXPECT_EQ(second.state(), whole.state()) << "what cannot be restored changes nothing";
}

TEST(Certificates, DeltaIsDividedOverTheWindowsOfTheEpoch) {
    // Windows open at 64, 128, 256 and 512 units; the epoch ends at 1000.
    PrequentialCertificate certificate(options_of(false), 1000, 32);
    const std::vector<UnitScores> units(32, unit_of(Philox(1, "unit"), 0, 4, 0.5));
    for (int step = 0; step < 31; ++step) certificate.add(units);
    const std::vector<double> state = certificate.state();
    EXPECT_EQ(state[4], 4) << "windows";
    EXPECT_DOUBLE_EQ(state[7], 0.05 / 4) << "delta of each";
}

TEST(Certificates, HeldoutHoldsForFixedWeights) {
    for (const bool exact : {false, true}) {
        int error = 0, bits = 0;
        double mean = 0;
        const double bits_at_fifth = mean_bits(0.2);
        for (u64 seed = 0; seed < 1000; ++seed) {
            const Philox random(seed, "held out");
            std::vector<UnitScores> units;
            for (u64 i = 0; i < 200; ++i) units.push_back(unit_of(random, i, exact ? 1 : 8, 0.2));
            const auto bounds = heldout_certificates(units, options_of(exact), 1, seed);
            error += bounds.at("heldout").value < 0.2 ? 1 : 0;
            bits += bounds.at("heldout_bits").value < bits_at_fifth ? 1 : 0;
            mean += bounds.at("heldout").value / 1000;
        }
        EXPECT_LE(error, 25) << "the first look spends half of delta 0.05";
        EXPECT_LE(bits, 25);
        EXPECT_LT(mean, exact ? 0.27 : 0.25);
    }
}

/// A run of checkpoints whose chances are known, and what is said of it: of every third one by a look of the
/// run, of the others by evaluations afterwards.
struct Statements {
    int looks = 0, evaluations = 0, any = 0;  ///< runs, evaluations, and runs, of which a limit was too low
};
Statements evaluate_checkpoints(u64 runs, i64 checkpoints) {
    Statements failed;
    for (u64 seed = 0; seed < runs; ++seed) {
        bool looks = false, evaluations = false;
        for (i64 checkpoint = 1; checkpoint <= checkpoints; ++checkpoint) {
            const double chance = chance_at(8 * checkpoint);
            const Philox random(seed * 100 + static_cast<u64>(checkpoint), "checkpoint");
            std::vector<UnitScores> units;
            for (u64 i = 0; i < 100; ++i) units.push_back(unit_of(random, i, 1, chance));
            const auto look = checkpoint % 3 == 0 ? std::optional(checkpoint / 3) : std::nullopt;
            const auto bounds = heldout_certificates(units, options_of(true), look, seed);
            const bool low = bounds.at("heldout").value < chance;
            failed.evaluations += !look && low ? 1 : 0;
            (look ? looks : evaluations) |= low;
        }
        failed.looks += looks ? 1 : 0;
        failed.any += looks || evaluations ? 1 : 0;
    }
    return failed;
}

TEST(Certificates, AnEvaluationBetweenTheLooksIsAStatementByItself) {
    const Statements failed = evaluate_checkpoints(1000, 12);
    EXPECT_LE(failed.looks, 50) << "of 1000 runs: delta 0.05 for all four looks at once";
    EXPECT_LE(failed.evaluations, 400) << "of 8000: delta 0.05 for each";
    EXPECT_GE(failed.evaluations, 200) << "and each spends it: with a share of delta its limit was higher";
    EXPECT_GT(failed.any, 150) << "which is why they are not said to hold together";

    const std::vector<UnitScores> units(100, unit_of(Philox(1, "unit"), 0, 1, 0.5));
    const auto alone = heldout_certificates(units, options_of(true), {}, 1).at("heldout"),
               second = heldout_certificates(units, options_of(true), 2, 1).at("heldout");
    EXPECT_DOUBLE_EQ(alone.details.at("delta"), 0.05);
    EXPECT_DOUBLE_EQ(second.details.at("delta"), 0.05 / 6);
    const auto about = [](const BoundResult& bound) { return bound.assumptions.back().meaning; };
    EXPECT_NE(about(alone).find("stands by itself"), std::string::npos) << about(alone);
    EXPECT_NE(about(second).find("delta/(t(t+1))"), std::string::npos) << about(second);
}

TEST(Certificates, WhatIsNotOnRecordIsAssumedAndSaid) {
    const std::vector<UnitScores> units(100, unit_of(Philox(1, "unit"), 0, 1, 0.5));
    CertificateOptions options = options_of(true);
    EvalRecord record;
    record.bounds = heldout_certificates(units, options, 1, 1);
    EXPECT_EQ(explain(record, 0.05, true).find("on record"), std::string::npos);
    options.recorded = false;
    record.bounds = heldout_certificates(units, options, 1, 1);
    EXPECT_NE(record.bounds.at("heldout").assumptions.back().meaning.find("not all on record"),
              std::string::npos);
    EXPECT_NE(explain(record, 0.05, false).find("the limits assume that none of these data were among it"),
              std::string::npos);
}

TEST(Certificates, HeldoutIsTheBinomialLimitForExactErrors) {
    std::vector<UnitScores> units(287);
    for (std::size_t i = 0; i < units.size(); ++i)
        units[i] = score_unit(std::vector{1.0}, std::vector{i < 7 ? -1.0 : 1.0}, options_of(true).scales);
    units.emplace_back();  // no target: no unit
    const auto bounds = heldout_certificates(units, options_of(true), 3, 1);
    EXPECT_DOUBLE_EQ(bounds.at("heldout").value, clopper_pearson_upper(7, 287, 0.05 / 12));
    EXPECT_EQ(bounds.at("heldout").details.at("units"), 287);
    EXPECT_DOUBLE_EQ(bounds.at("heldout").terms.at("empirical"), 7.0 / 287);
    const auto later = heldout_certificates(units, options_of(true), 30, 1);
    EXPECT_GT(later.at("heldout").value, bounds.at("heldout").value) << "later looks pay more";
    EXPECT_TRUE(heldout_certificates({}, options_of(true), 1, 1).empty());
    units[0].losses[0] = std::nan("");
    EXPECT_TRUE(heldout_certificates(units, options_of(true), 1, 1).empty());
}

}  // namespace
}  // namespace moesaic
