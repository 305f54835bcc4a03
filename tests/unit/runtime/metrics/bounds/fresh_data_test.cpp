// Certificates on streams whose chance drifts: they may fail at any step in at most a share delta of streams.
#include "runtime/metrics/bounds/fresh_data.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "runtime/base/philox.h"
#include "tests/unit/runtime/metrics/bounds/close.h"

namespace moesaic {
namespace {

constexpr double kDelta = .05;

FreshDataOptions small_windows() {
    FreshDataOptions options;
    options.delta = kDelta;
    options.first_window = 16;
    options.minimum_count = 1;
    return options;
}

/// The chance of a loss of 1 at unit i: falls as a model learns, with a jump on the way.
double chance(u64 i) {
    const double trained = .05 + .4 * std::exp(-static_cast<double>(i) / 300);
    return i > 900 && i < 1100 ? trained + .2 : trained;
}

struct Stream {
    bool violated = false;
    double last_width = 0;
};

/// Feeds 2000 losses in steps of `batch`; a window's bound is compared with the mean chance over its units.
template <class Certificate>
Stream run_stream(u64 seed, u64 batch, bool binary) {
    const Philox random(seed, "stream");
    Certificate certificate(small_windows());
    Stream stream;
    double window = 0, chances = 0;
    for (u64 first = 0; first < 2000; first += batch) {
        double sum = 0, squares = 0, step_chances = 0;
        for (u64 i = first; i < first + batch; ++i) {
            const double p = chance(i), u = random.uniform(i);
            // Either 0-1 losses, or averages in a narrow band around p.
            const double loss = binary ? (u < p ? 1 : 0) : p + .04 * (2 * u - 1);
            sum += loss;
            squares += loss * loss;
            step_chances += p;
        }
        certificate.add(static_cast<double>(batch), sum, squares);
        const FreshDataBound bound = certificate.bound();
        if (bound.window == 0) continue;
        if (bound.window != window) chances = 0;
        window = bound.window;
        chances += step_chances;
        stream.violated |= bound.upper < chances / bound.count - 1e-12;
        stream.last_width = bound.upper - chances / bound.count;
    }
    return stream;
}

template <class Certificate>
void expect_valid(bool binary, double widest) {
    for (const u64 batch : {1u, 8u}) {
        int violations = 0;
        double width = 0;
        for (u64 seed = 0; seed < 1000; ++seed) {
            const Stream stream = run_stream<Certificate>(seed, batch, binary);
            violations += stream.violated ? 1 : 0;
            width += stream.last_width / 1000;
        }
        testing::Test::RecordProperty("violations", violations);
        EXPECT_LE(violations, 1000 * kDelta) << "batch " << batch;
        EXPECT_LT(width, widest) << "and it says something: batch " << batch;
        EXPECT_GT(width, 0);
    }
}

TEST(FreshData, CatoniIsValidAtAnyStep) {
    expect_valid<CatoniCertificate>(true, .06);
}
TEST(FreshData, BernsteinIsValidAtAnyStep) {
    expect_valid<BernsteinCertificate>(true, .08);
}
TEST(FreshData, BernsteinIsNarrowForAverages) {
    expect_valid<BernsteinCertificate>(false, .02);
}

TEST(FreshData, MoreConfidenceWouldBeTooMuch) {
    // The same streams against a bound with a far too small ln(1/delta): the test above can fail.
    int violations = 0;
    for (u64 seed = 0; seed < 1000; ++seed) {
        const Philox random(seed, "stream");
        FreshDataOptions options = small_windows();
        options.delta = 1 - 1e-9;
        options.planned_windows = 1;
        CatoniCertificate certificate(options);
        bool violated = false;
        for (u64 i = 0; i < 32; ++i) {
            const double loss = random.uniform(i) < .3 ? 1 : 0;
            certificate.add(1, loss, loss);
            if (certificate.bound().window == 1) violated |= certificate.bound().upper < .3;
        }
        violations += violated ? 1 : 0;
    }
    EXPECT_GT(violations, 500);
}

TEST(FreshData, WindowsDoubleAndDivideDelta) {
    FreshDataOptions options = small_windows();
    CatoniCertificate certificate(options);
    std::vector<double> opened;
    for (int step = 0; step < 260; ++step) {
        certificate.add(1, 0, 0);
        const FreshDataState& state = certificate.state();
        if (state.window > static_cast<double>(opened.size())) {
            opened.push_back(state.opened_at);
            expect_close(state.window_delta, kDelta / (state.window * (state.window + 1)), 1e-14);
        }
    }
    EXPECT_EQ(opened, (std::vector<double>{16, 32, 64, 128, 256}));

    options.planned_windows = 2;
    BernsteinCertificate planned(options);
    for (int step = 0; step < 100; ++step) planned.add(1, 0, 0);
    EXPECT_EQ(planned.state().window, 3);
    EXPECT_EQ(planned.state().window_delta, 0) << "nothing is left for a window that was not planned";
    EXPECT_EQ(planned.bound().window, 2) << "and the last planned one stays on screen";
}

TEST(FreshData, ShowsThePreviousWindowWhileTheNewOneIsYoung) {
    FreshDataOptions options = small_windows();
    options.minimum_count = 10;
    BernsteinCertificate certificate(options);
    const auto feed = [&](int units) {
        for (int i = 0; i < units; ++i) certificate.add(1, .5, .25);
    };
    feed(15);
    EXPECT_EQ(certificate.bound().window, 0);
    EXPECT_EQ(certificate.bound().upper, 1);
    feed(17);  // window 1 is complete: 16 units
    EXPECT_EQ(certificate.bound().window, 1);
    const FreshDataBound first = certificate.bound();
    feed(5);
    EXPECT_EQ(certificate.state().window, 2);
    EXPECT_EQ(certificate.bound().window, 1);
    EXPECT_EQ(certificate.bound().upper, first.upper);
    feed(5);
    EXPECT_EQ(certificate.bound().window, 2);
}

TEST(FreshData, StateIsAllThereIs) {
    for (const bool catoni : {false, true}) {
        const auto make = [&]() -> std::unique_ptr<FreshDataCertificate> {
            if (catoni) return std::make_unique<CatoniCertificate>(small_windows());
            return std::make_unique<BernsteinCertificate>(small_windows());
        };
        const auto whole = make(), first = make(), second = make();
        const Philox random(5, "state");
        for (u64 step = 0; step < 90; ++step) {
            const double loss = .2 * random.uniform(step);
            whole->add(3, 3 * loss, 3 * loss * loss);
            if (step == 50) second->restore(first->state());
            (step < 50 ? first : second)->add(3, 3 * loss, 3 * loss * loss);
        }
        EXPECT_EQ(whole->bound().upper, second->bound().upper);
        EXPECT_EQ(whole->bound().count, second->bound().count);
        EXPECT_LT(whole->bound().upper, 1);
    }
}

TEST(FreshData, EmptyStepsChangeNothing) {
    BernsteinCertificate certificate(small_windows());
    for (int i = 0; i < 40; ++i) {
        certificate.add(1, .3, .09);
        certificate.add(0, 0, 0);
    }
    EXPECT_EQ(certificate.state().window, 2);
    EXPECT_EQ(certificate.bound().count, 8);
    EXPECT_DEATH(certificate.add(1, 2, 4), "outside \\[0, 1\\]");
}

}  // namespace
}  // namespace moesaic
