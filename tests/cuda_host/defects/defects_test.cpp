// Every planted defect is found as often as the table says, and clean kernels give no finding: on the
// emulator alone as often as the order of threads shows it, by the memory checker always.
#include "tests/cuda_host/defects/defects.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <regex>
#include <vector>

#include "tests/cuda_host/modes.h"
#include "tests/cuda_host/sanitizer.h"

namespace moesaic::defects {
namespace {

using cuda_host::Layer;
using cuda_host::Mode;
using cuda_host::modes;

/// A stream, and numbers in memory of the device, which goes with it.
class Gpu {
  public:
    Gpu() { cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); }
    ~Gpu() {
        cudaStreamDestroy(stream);
        for (void* block : blocks_) cudaFree(block);
    }
    template <class T>
    T* room(int count) {
        void* block = nullptr;
        cudaMallocManaged(&block, static_cast<std::size_t>(count) * sizeof(T), cudaMemAttachGlobal);
        blocks_.push_back(block);
        return static_cast<T*>(block);
    }
    /// 1, 2, 3, 4, 5, 1, ...
    template <class T>
    T* numbers(int count, int period = 5) {
        T* const data = room<T>(count);
        for (int i = 0; i < count; ++i)
            data[i] = static_cast<T>(i % period + (std::is_floating_point_v<T> ? 1 : 0));
        return data;
    }
    template <class T>
    T* zeros(int count) {
        T* const data = room<T>(count);
        std::fill(data, data + count, T{0});
        return data;
    }
    bool run() { return cudaStreamSynchronize(stream) == cudaSuccess; }

    cudaStream_t stream = nullptr;

  private:
    std::vector<void*> blocks_;
};

/// Runs a kernel; false where it ran to its end with wrong numbers.
using Run = std::function<bool(Gpu&, Defect)>;

bool near(float have, double want) {
    return std::abs(static_cast<double>(have) - want) <= 1e-5 * std::abs(want);
}

bool normalizes(Gpu& gpu, Defect defect) {
    constexpr int rows = 3, n = 200;
    const float* const x = gpu.numbers<float>(rows * n);
    float* const y = gpu.room<float>(rows * n);
    normalize(gpu.stream, x, y, rows, n, defect);
    if (!gpu.run()) return true;
    for (int i = 0; i < rows * n; ++i)
        if (!near(y[i], static_cast<double>(x[i]) / std::sqrt(11.0))) return false;
    return true;
}

bool sums_rows(Gpu& gpu, Defect defect) {
    constexpr int rows = 6, n = 50;
    const float* const x = gpu.numbers<float>(rows * n);
    float* const sums = gpu.room<float>(rows);
    sum_rows(gpu.stream, x, sums, rows, n, defect);
    if (!gpu.run()) return true;
    for (int row = 0; row < rows; ++row)
        if (!near(sums[row], 150)) return false;
    return true;
}

bool counts_keys(Gpu& gpu, Defect defect) {
    constexpr int n = 200;
    const int* const keys = gpu.numbers<int>(n);
    int* const counts = gpu.zeros<int>(kKeys);
    count_keys(gpu.stream, keys, counts, n, defect);
    if (!gpu.run()) return true;
    for (int key = 0; key < kKeys; ++key)
        if (counts[key] != (key < 5 ? 40 : 0)) return false;
    return true;
}

bool sorts_keys(Gpu& gpu, Defect defect) {
    constexpr int n = 100;
    const int* const keys = gpu.numbers<int>(n);
    int* const order = gpu.room<int>(n);
    sort_keys(gpu.stream, keys, order, n, defect);
    if (!gpu.run()) return true;
    for (int i = 0; i < n; ++i)
        if (order[i] != i % 20 * 5 + i / 20) return false;
    return true;
}

bool copies_and_doubles(Gpu& gpu, Defect defect) {
    constexpr int rows = 4, n = 140;
    const float* const x = gpu.numbers<float>(rows * n);
    float *const copy = gpu.room<float>(rows * n), *const y = gpu.room<float>(rows * n);
    copy_rows(gpu.stream, x, copy, rows, n, defect);
    double_all(gpu.stream, copy, y, rows * n, defect);
    if (!gpu.run()) return true;
    for (int i = 0; i < rows * n; ++i)
        if (y[i] != 2 * x[i]) return false;
    return true;
}

bool sums_products(Gpu& gpu, Defect defect) {
    constexpr int n = 2 * kTile;
    const float* const x = gpu.numbers<float>(n, kTile + 1);
    float* const y = gpu.room<float>(n);
    sum_products(gpu.stream, x, y, n, defect);
    if (!gpu.run()) return true;
    const double sum = std::accumulate(x, x + n, 0.0);
    for (int i = 0; i < n; ++i)
        if (!near(y[i], static_cast<double>(x[i]) * sum)) return false;
    return true;
}

bool sums_columns(Gpu& gpu, Defect defect) {
    constexpr int rows = 5, n = 40;
    const float* const x = gpu.numbers<float>(rows * n);
    float* const sum = gpu.zeros<float>(n);
    sum_columns(gpu.stream, x, sum, rows, n, defect);
    if (!gpu.run()) return true;
    for (int i = 0; i < n; ++i)
        if (!near(sum[i], 5 * static_cast<double>(x[i]))) return false;
    return true;
}

/// What one run of a kernel on one seed showed: a finding, "wrong result", or nothing.
std::string outcome(const Mode& mode, std::uint64_t seed, const Run& run, Defect defect) {
    cuda_host::Settings settings = mode.settings;
    settings.seed = seed;
    cuda_host::reset(settings);
    bool right = false;
    {
        Gpu gpu;
        right = run(gpu, defect);
    }
    const std::string finding = cuda_host::first_finding();
    cuda_host::reset({});
    return !finding.empty() ? finding : right ? "" : "wrong result";
}

constexpr int kNever = 0, kAlways = 4, kCrashes = -1;  // a processor that loads vectors dies of it

struct Planted {
    const char* name;
    Defect defect;
    Run run;
    int emulated;         ///< seeds of 4 that show it without the checker
    const char* checked;  ///< what the checker and the interpreter say
    const char* sanitized =
        nullptr;  ///< what g++'s sanitizers say, where the program has them and they see it
};

void PrintTo(const Planted& planted, std::ostream* out) {
    *out << planted.name;
}

const std::vector<Planted>& planted() {
    static const std::vector<Planted> all{
        {"NoBarrierAfterWrite", Defect::no_barrier_after_write, normalizes, kAlways,
         "(race|uninitialised): .* at defects.cu:\\d+ by thread \\d+ of block 0 of .*normalize.*"},
        {"NoBarrierBeforeReuse", Defect::no_barrier_before_reuse, normalizes, kAlways,
         "race: .* at defects.cu:\\d+ by thread \\d+ of block 0 of .*nothing orders it after the .* at "
         "defects.cu:\\d+ by thread.*"},
        {"RowReadTooFar", Defect::row_read_too_far, normalizes, kAlways,
         "out of bounds: read at .*0 bytes after .*", "AddressSanitizer: .*defects.cu:\\d+"},
        {"BarrierInBranch", Defect::barrier_in_branch, normalizes, kAlways, "divergence: thread .*"},
        {"LoopLeftEarly", Defect::loop_left_early, normalizes, kAlways, "wrong result"},
        {"LaneLeavesShuffles", Defect::lane_leaves_shuffles, sums_rows, kAlways, "divergent warp .*"},
        {"NoSyncOfWarp", Defect::no_sync_of_warp, sums_rows, 3, "(race|uninitialised): .*"},
        {"CountedWithoutAtomic", Defect::counted_without_atomic, counts_keys, kNever, "race: .*"},
        {"HistogramNotZeroed", Defect::histogram_not_zeroed, counts_keys, kAlways, "uninitialised: .*"},
        {"SharedArrayOverrun", Defect::shared_array_overrun, counts_keys, kNever,
         "out of bounds: write .*outside of the block's shared arrays", "AddressSanitizer: use-after-poison"},
        {"NoBarrierAtLoopEnd", Defect::no_barrier_at_loop_end, sorts_keys, 3, "race: .*",
         "AddressSanitizer: use-after-poison"},
        {"RowWrittenTooFar", Defect::row_written_too_far, copies_and_doubles, kNever,
         "race: write at .* nothing orders it after the write at .*"},
        {"MisalignedLoad", Defect::misaligned_load, copies_and_doubles, kCrashes,
         "misaligned: read .* of 16 bytes", "misaligned address"},
        {"OutputNotWritten", Defect::output_not_written, copies_and_doubles, kAlways,
         "uninitialised: read .*double_all.*"},
        {"TileOverwritten", Defect::tile_overwritten, sums_products, 3, "race: .*"},
        {"SummedAcrossBlocks", Defect::summed_across_blocks, sums_columns, kNever,
         "race: .*of block 1 .*nothing orders it after the write .*of block 0.*"},
    };
    return all;
}

class Defects : public ::testing::TestWithParam<std::tuple<Mode, Planted>> {};

TEST_P(Defects, AreFound) {
    const auto& [mode, defect] = GetParam();
    if (mode.layer == Layer::emulated && cuda_host::has_sanitizers() && defect.sanitized != nullptr) {
        const auto meet = [&] {
            (void)outcome(mode, 0, defect.run, defect.defect);
            std::_Exit(1);  // a sanitizer may only say it
        };
        EXPECT_DEATH(meet(), defect.sanitized);
        return;
    }
    if (mode.layer == Layer::emulated && defect.emulated == kCrashes)
        GTEST_SKIP() << "the program may die of it";
    int seen = 0;
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
        const std::string found = outcome(mode, seed, defect.run, defect.defect);
        seen += found.empty() ? 0 : 1;
        if (mode.layer == Layer::emulated) continue;
        EXPECT_TRUE(std::regex_match(found, std::regex(fmt::format("(.*, block .*: )?{}", defect.checked))))
            << "seed " << seed << ": '" << found << "' is not '" << defect.checked << "'";
    }
    if (mode.layer == Layer::emulated) {
        EXPECT_GE(seen, defect.emulated);
        if (defect.emulated == kNever) {
            EXPECT_EQ(seen, 0) << "the emulator alone sees it now: say so in the table";
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, Defects,
                         ::testing::Combine(::testing::ValuesIn(modes()), ::testing::ValuesIn(planted())),
                         [](const auto& one) {
                             return std::get<Mode>(one.param).name + "_" + std::get<Planted>(one.param).name;
                         });

class CleanKernels : public ::testing::TestWithParam<Mode> {};

TEST_P(CleanKernels, GiveNoFindingOnAnySeed) {
    const std::uint64_t seeds = GetParam().layer == Layer::ptx ? 16 : 64;
    for (std::uint64_t seed = 0; seed < seeds; ++seed) {
        for (const auto run : {normalizes, sums_rows, counts_keys, sorts_keys, copies_and_doubles,
                               sums_products, sums_columns})
            ASSERT_EQ(outcome(GetParam(), seed, run, Defect::none), "") << "seed " << seed;
    }
}

INSTANTIATE_TEST_SUITE_P(All, CleanKernels, ::testing::ValuesIn(modes()),
                         [](const auto& one) { return one.param.name; });

/// What g++ never sees: only the interpreter finds it.
TEST_P(CleanKernels, AreNotAllThatNvccCompiles) {
    const std::string found = outcome(GetParam(), 0, copies_and_doubles, Defect::in_device_branch);
    EXPECT_EQ(found, GetParam().layer == Layer::ptx ? "wrong result" : "");
}

}  // namespace
}  // namespace moesaic::defects
