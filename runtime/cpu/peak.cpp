#include "runtime/cpu/peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

using Clock = std::chrono::steady_clock;
constexpr double kSecondsPerRepetition = 2e-3;
constexpr int kFewRepetitions = 5;  // a run measures before its first step

double seconds_of(const PeakLoop& loop, i64 rounds) {
    const auto start = Clock::now();
    loop.run(rounds);
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// As many rounds as fill a repetition on an undisturbed core; before that, the clock and the vector units
/// wake up.
i64 rounds_per_repetition(const PeakLoop& loop) {
    const auto start = Clock::now();
    double per_round = 1;
    while (std::chrono::duration<double>(Clock::now() - start).count() < 2 * kSecondsPerRepetition) {
        constexpr i64 kTrial = 2000;
        per_round = std::min(per_round, seconds_of(loop, kTrial) / kTrial);
    }
    return std::max<i64>(1, static_cast<i64>(kSecondsPerRepetition / per_round));
}

/// Where threads wait for one another before each repetition, spinning so that they start together.
class StartLine {
  public:
    explicit StartLine(int threads) : threads_(threads) {}
    void wait() {
        const int turn = turn_.load();
        if (arrived_.fetch_add(1) + 1 == threads_) {
            arrived_.store(0);
            turn_.store(turn + 1);
            return;
        }
        while (turn_.load() == turn) std::this_thread::yield();
    }

  private:
    int threads_;
    std::atomic<int> arrived_{0}, turn_{0};
};

/// Rounds per second of each repetition, summed over threads that start together.
std::vector<double> repeat(const PeakLoop& loop, i64 rounds, int threads, int repetitions) {
    const auto count = static_cast<std::size_t>(repetitions);
    std::vector<std::vector<double>> rates(static_cast<std::size_t>(threads));
    StartLine line(threads);
    const auto work = [&](std::size_t thread) {
        for (std::size_t i = 0; i < count; ++i) {
            line.wait();
            rates[thread].push_back(static_cast<double>(rounds) / seconds_of(loop, rounds));
        }
    };
    {
        std::vector<std::jthread> others;
        for (std::size_t thread = 1; thread < rates.size(); ++thread) others.emplace_back(work, thread);
        work(0);
    }
    std::vector<double> sums(count);
    for (const std::vector<double>& own : rates) std::ranges::transform(sums, own, sums.begin(), std::plus());
    return sums;
}

Peak measure_loop(const PeakLoop& loop, int threads, int repetitions) {
    std::vector<double> rates = repeat(loop, rounds_per_repetition(loop), threads, repetitions);
    std::ranges::sort(rates);
    const double flops = loop.flops_per_round;
    return {flops * rates.back(), flops * rates[rates.size() / 2], loop.name, loop.assembly};
}

}  // namespace

std::vector<Peak> measure_peaks(PeakType type, int threads, int repetitions) {
    MOESAIC_ASSERT(threads > 0 && repetitions > 0, "{} threads, {} repetitions", threads, repetitions);
    std::vector<PeakLoop> loops = assembly_peak_loops(type);
    if (type == PeakType::bf16) {
        for (PeakLoop& widened : assembly_peak_loops(PeakType::f32)) loops.push_back(std::move(widened));
    }
    if (loops.empty())
        loops.push_back(portable_peak_loop(type == PeakType::f64 ? PeakType::f64 : PeakType::f32));
    std::vector<Peak> peaks;
    for (const PeakLoop& loop : loops) peaks.push_back(measure_loop(loop, threads, repetitions));
    std::ranges::stable_sort(peaks, std::greater(), &Peak::best);
    return peaks;
}

Peak measure_peak(PeakType type, int threads, int repetitions) {
    return measure_peaks(type, threads, repetitions).front();
}

double measure_peak_flops(int threads, bool double_precision) {
    return measure_peak(double_precision ? PeakType::f64 : PeakType::f32, threads, kFewRepetitions).best;
}

double measure_bf16_peak_flops(int threads) {
    return measure_peak(PeakType::bf16, threads, kFewRepetitions).best;
}

}  // namespace moesaic
