#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/memory_bandwidth.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include <hwy/cache_control.h>
#include <hwy/highway.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "runtime/base/error.h"
#include "runtime/cpu/memory_bandwidth.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::bandwidth::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// `count` is a multiple of any vector's lanes times four.
float read_array(const float* a, i64 count) {
    const hn::ScalableTag<float> d;
    const auto lanes = static_cast<i64>(hn::Lanes(d));
    auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
    for (i64 i = 0; i < count; i += 4 * lanes) {
        s0 = hn::Add(s0, hn::Load(d, a + i));
        s1 = hn::Add(s1, hn::Load(d, a + i + lanes));
        s2 = hn::Add(s2, hn::Load(d, a + i + 2 * lanes));
        s3 = hn::Add(s3, hn::Load(d, a + i + 3 * lanes));
    }
    return hn::GetLane(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

void write_array(float* a, i64 count) {
    const hn::ScalableTag<float> d;
    const auto value = hn::Set(d, 1.5F);
    for (i64 i = 0; i < count; i += static_cast<i64>(hn::Lanes(d))) hn::Store(value, d, a + i);
}

void stream_array(float* a, i64 count) {
    const hn::ScalableTag<float> d;
    const auto value = hn::Set(d, 2.5F);
    for (i64 i = 0; i < count; i += static_cast<i64>(hn::Lanes(d))) hn::Stream(value, d, a + i);
    hwy::FlushStream();
}

void copy_array(const float* from, float* to, i64 count) {
    const hn::ScalableTag<float> d;
    for (i64 i = 0; i < count; i += static_cast<i64>(hn::Lanes(d)))
        hn::Store(hn::Load(d, from + i), d, to + i);
}

void triad_arrays(const float* b, const float* c, float* a, i64 count) {
    const hn::ScalableTag<float> d;
    const auto factor = hn::Set(d, 0.5F);
    for (i64 i = 0; i < count; i += static_cast<i64>(hn::Lanes(d)))
        hn::Store(hn::MulAdd(factor, hn::Load(d, c + i), hn::Load(d, b + i)), d, a + i);
}

i64 this_target() {
    return HWY_TARGET;
}

}  // namespace
}  // namespace moesaic::bandwidth::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic {

namespace bandwidth {
HWY_EXPORT(read_array);
HWY_EXPORT(write_array);
HWY_EXPORT(stream_array);
HWY_EXPORT(copy_array);
HWY_EXPORT(triad_arrays);
HWY_EXPORT(this_target);
}  // namespace bandwidth

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kRepetitions = 11, kFewest = 3;
constexpr double kEnoughSeconds = 0.25;
volatile float sink;  // what was read has to go somewhere

/// Pages of its own, large ones where the system grants them.
class Pages {
  public:
    explicit Pages(i64 bytes) : bytes_(static_cast<std::size_t>(bytes)) {
        void* const pages =
            ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED) throw Error(fmt::format("no memory for an array of {} bytes", bytes));
        ::madvise(pages, bytes_, MADV_HUGEPAGE);
        data_ = static_cast<float*>(pages);
    }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;
    ~Pages() { ::munmap(data_, bytes_); }
    [[nodiscard]] float* data() const { return data_; }

  private:
    std::size_t bytes_;
    float* data_ = nullptr;
};

struct Arrays {
    explicit Arrays(i64 elements) : count(elements), a(elements * 4), b(elements * 4), c(elements * 4) {
        // The first touch decides which NUMA node holds the pages.
        for (const Pages* pages : {&a, &b, &c})
            HWY_DYNAMIC_DISPATCH(bandwidth::write_array)(pages->data(), count);
    }
    i64 count;
    Pages a, b, c;
};

struct Operation {
    const char* name;
    double arrays_moved;
    void (*run)(const Arrays& arrays);
};

const Operation kOperations[] = {
    {"read", 1,
     [](const Arrays& x) { sink = HWY_DYNAMIC_DISPATCH(bandwidth::read_array)(x.a.data(), x.count); }},
    {"write", 1,
     [](const Arrays& x) {
         HWY_DYNAMIC_DISPATCH(bandwidth::write_array)
         (x.a.data(), x.count);
     }},
    {"write NT", 1,
     [](const Arrays& x) {
         HWY_DYNAMIC_DISPATCH(bandwidth::stream_array)
         (x.a.data(), x.count);
     }},
    {"copy", 2,
     [](const Arrays& x) {
         HWY_DYNAMIC_DISPATCH(bandwidth::copy_array)
         (x.b.data(), x.a.data(), x.count);
     }},
    {"triad", 3,
     [](const Arrays& x) {
         HWY_DYNAMIC_DISPATCH(bandwidth::triad_arrays)(x.b.data(), x.c.data(), x.a.data(), x.count);
     }},
};

/// Threads that run an operation together, again and again; each owns its part of the arrays.
class Team {
  public:
    Team(int threads, i64 elements_each) {
        own_ = std::make_unique<Arrays>(elements_each);
        for (int i = 1; i < threads; ++i)
            workers_.emplace_back([this, elements_each] { work(elements_each); });
        while (ready_.load() < threads - 1) std::this_thread::yield();
    }
    ~Team() {
        stop_.store(true);
        turn_.fetch_add(1);
    }
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    /// Seconds until the last thread is done.
    double run(const Operation& operation) {
        operation_ = &operation;
        finished_.store(0);
        const auto start = Clock::now();
        turn_.fetch_add(1);
        operation.run(*own_);
        while (finished_.load() < static_cast<int>(workers_.size())) std::this_thread::yield();
        return std::chrono::duration<double>(Clock::now() - start).count();
    }

  private:
    void work(i64 elements) {
        const Arrays arrays(elements);
        ready_.fetch_add(1);
        for (int seen = 0;; ++seen) {
            while (turn_.load() == seen) std::this_thread::yield();
            if (stop_.load()) return;
            operation_->run(arrays);
            finished_.fetch_add(1);
        }
    }

    std::unique_ptr<Arrays> own_;
    const Operation* operation_ = nullptr;
    std::atomic<int> turn_{0}, finished_{0}, ready_{0};
    std::atomic<bool> stop_{false};
    std::vector<std::jthread> workers_;  // last: joined before anything they use goes
};

}  // namespace

std::vector<MemoryRate> measure_memory_bandwidth(int threads, i64 array_bytes) {
    MOESAIC_ASSERT(threads > 0 && array_bytes > 0, "{} threads, {} bytes", threads, array_bytes);
    constexpr i64 kGrain = 1024;  // elements
    const i64 each = std::max<i64>(1, array_bytes / threads / (kGrain * 4)) * kGrain;
    Team team(threads, each);
    std::vector<MemoryRate> rates;
    for (const Operation& operation : kOperations) {
        std::vector<double> seconds;
        const auto start = Clock::now();
        while (static_cast<int>(seconds.size()) < kRepetitions) {
            seconds.push_back(team.run(operation));
            const double spent = std::chrono::duration<double>(Clock::now() - start).count();
            if (static_cast<int>(seconds.size()) >= kFewest && spent > kEnoughSeconds) break;
        }
        std::ranges::sort(seconds);
        const double bytes = operation.arrays_moved * 4.0 * static_cast<double>(each) * threads;
        rates.push_back({operation.name, bytes / seconds.front(), bytes / seconds[seconds.size() / 2]});
    }
    return rates;
}

std::string vector_target_name() {
    return hwy::TargetName(HWY_DYNAMIC_DISPATCH(bandwidth::this_target)());
}

}  // namespace moesaic
#endif
