// The pool reuses its blocks, so that a training step takes nothing from the system.
#include "runtime/memory_pool.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

namespace moesaic {
namespace {

TEST(MemoryPool, TakesNothingFreshOnReuse) {
    MemoryPool pool;
    for (int round = 0; round < 3; ++round) {
        const Tensor a(pool, {100, 64}, DType::f32), b(pool, {7}, DType::f64), c(pool, {100, 64}, DType::f32);
    }
    EXPECT_EQ(pool.fresh_allocations(), 3);
    EXPECT_EQ(pool.bytes_in_use(), 0);
}

TEST(MemoryPool, HandsOutBlocksOfAnySizeAligned) {
    MemoryPool pool;
    for (const i64 bytes : {0, 1, 63, 255, 257, 1000, 4097, 1 << 20, (1 << 21) + 1, 5000001}) {
        const MemoryPool::Block block = pool.take(bytes);
        EXPECT_GE(block.bytes, bytes);
        EXPECT_LE(block.bytes, std::max<i64>(256, bytes + bytes / 4 + 1)) << bytes;
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.data) % 64, 0u) << bytes;
        pool.give_back(block);
    }
    EXPECT_EQ(pool.bytes_in_use(), 0);
}

TEST(MemoryPool, DoesNotSpendALargeBlockOnASmallWish) {
    MemoryPool pool;
    pool.give_back(pool.take(1 << 20));
    const MemoryPool::Block small = pool.take(1000);
    EXPECT_LT(small.bytes, 2048);
    EXPECT_EQ(pool.fresh_allocations(), 2);
    pool.give_back(small);
}

TEST(MemoryPool, CountsWhatIsInUseAndItsPeak) {
    MemoryPool pool;
    const MemoryPool::Block first = pool.take(1024), second = pool.take(2048);
    EXPECT_EQ(pool.bytes_in_use(), 3072);
    pool.give_back(first);
    EXPECT_EQ(pool.bytes_in_use(), 2048);
    const MemoryPool::Block third = pool.take(256);
    EXPECT_EQ(pool.bytes_in_use(), 2304);
    EXPECT_EQ(pool.peak_bytes_in_use(), 3072);
    EXPECT_EQ(pool.bytes_reserved(), 3328);
    pool.give_back(second);
    pool.give_back(third);
}

TEST(MemoryPool, PoisonsWhatItHandsOut) {
    MemoryPool pool(Device::cpu, PoolMode::poison);
    for (int round = 0; round < 2; ++round) {  // fresh, then reused
        Tensor tensor(pool, {10}, DType::f32);
        EXPECT_TRUE(std::isnan(tensor.as<float>()[9]));
        tensor.as<float>()[9] = 1;
    }
}

TEST(MemoryPool, RefusesWithTheSizeInTheMessage) {
    MemoryPool pool;
    try {
        (void)pool.take(i64{1} << 60);
        FAIL() << "got a block";
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(std::to_string(i64{1} << 60)), std::string::npos)
            << error.what();
    }
}

TEST(MemoryPool, KnowsWhatItsPeakWasFor) {
    MemoryPool pool;
    const auto of = [&](MemoryUse use) { return pool.peak_by_use()[static_cast<std::size_t>(use)]; };
    const MemoryPool::Block rows = pool.take(1024);
    {
        const MemoryUseScope scope(pool, MemoryUse::exchange);
        const MemoryPool::Block sent = pool.take(4096);
        EXPECT_EQ(sent.use, MemoryUse::exchange);
        pool.give_back(sent);
    }
    EXPECT_EQ(of(MemoryUse::activations), 1024);
    EXPECT_EQ(of(MemoryUse::exchange), 4096);
    const MemoryPool::Block reused = pool.take(4096);  // now for something else; no more than before in use
    EXPECT_EQ(reused.use, MemoryUse::activations);
    EXPECT_EQ(of(MemoryUse::exchange), 4096);
    const MemoryPool::Block more = pool.take(256);
    EXPECT_EQ(of(MemoryUse::activations), 1024 + 4096 + 256);
    EXPECT_EQ(of(MemoryUse::exchange), 0);
    for (const MemoryPool::Block& block : {rows, reused, more}) pool.give_back(block);
    EXPECT_EQ(pool.bytes_in_use(), 0);
}

TEST(MemoryPool, AddressSpaceIsNoMemory) {
    MemoryPool pool(Device::cpu, PoolMode::address_space);
    const MemoryPool::Block block = pool.take(i64{1} << 37);  // more than a test machine has
    static_cast<char*>(block.data)[i64{1} << 36] = 1;
    pool.give_back(block);
}

TEST(MemoryPool, TensorsReturnTheirBlockOnceWhenMoved) {
    MemoryPool pool;
    Tensor a(pool, {16}, DType::f64);
    Tensor b = std::move(a);
    EXPECT_TRUE(b);
    EXPECT_FALSE(a);  // NOLINT(bugprone-use-after-move): what is left behind is the question
    Tensor c(pool, {1000}, DType::f64);
    c = std::move(b);
    EXPECT_EQ(c.elements(), 16);
    c.reset();
    EXPECT_EQ(pool.bytes_in_use(), 0);
}

}  // namespace
}  // namespace moesaic
