// The instructions of runtime/cuda/hopper/instructions.h as g++ compiles them, for the emulator's threads:
// barriers that count arrivals and bytes, tensor copies with their swizzle, products that run on until they
// are waited for.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "runtime/cuda/gpu.h"
#include "runtime/cuda/hopper/warpgroup_product.h"

namespace cuda_host {

/// What a CUtensorMap holds here.
struct ModelMap {
    const std::uint16_t* data;
    std::int64_t extents[3];
    int box_rows;
};
[[nodiscard]] CUtensorMap map_of(const ModelMap& map);

// Addresses are those of the block's dynamic shared memory, from a number on that is aligned to nothing.
inline constexpr unsigned kFirstSharedAddress = 48;

void barrier_start(unsigned barrier, unsigned arrivals);
void barrier_arrive(unsigned barrier, unsigned bytes);
void barrier_wait(unsigned barrier, unsigned parity);
void meet_some(int barrier, int threads);
void copy_box(unsigned shared, const CUtensorMap& map, unsigned barrier, int x, int y, int z);
/// A product of the thread's warpgroup; layouts as PTX has them in descriptors.
struct ModelProduct {
    std::uint64_t a, b;
    bool transpose_a, transpose_b, onto;
    bool operator==(const ModelProduct&) const = default;
};
void start_product(const ModelProduct& product, float* sums);
void commit_products();
void wait_for_products(int running);
unsigned char* shared_bytes(unsigned address, std::size_t bytes);

}  // namespace cuda_host

inline double2 __ldcs(const double2* from) {
    return *from;
}
inline void __stcs(double2* to, const double2& value) {
    *to = value;
}

namespace moesaic::hopper {

inline unsigned shared_address(const void* shared) {
    return cuda_host::kFirstSharedAddress +
           static_cast<unsigned>(static_cast<const char*>(shared) -
                                 static_cast<const char*>(cuda_host::dynamic_shared()));
}
inline void barrier_start(unsigned barrier, unsigned arrivals) {
    cuda_host::barrier_start(barrier, arrivals);
}
inline void publish_barriers() {}
inline void barrier_arrive(unsigned barrier) {
    cuda_host::barrier_arrive(barrier, 0);
}
inline void barrier_expect(unsigned barrier, unsigned bytes) {
    cuda_host::barrier_arrive(barrier, bytes);
}
inline void barrier_wait(unsigned barrier, unsigned parity) {
    cuda_host::barrier_wait(barrier, parity);
}
inline void meet(int barrier, int threads) {
    cuda_host::meet_some(barrier, threads);
}
inline void fetch_map(const CUtensorMap*) {}
inline void copy_box(unsigned shared, const CUtensorMap* map, unsigned barrier, int x, int y, int z) {
    cuda_host::copy_box(shared, *map, barrier, x, y, z);
}
inline void show_stores() {}
template <int kRegisters>
void take_registers() {}
template <int kRegisters>
void give_registers() {}
inline void store_matrices(unsigned row, const unsigned (&pairs)[4]) {
    const cuda_host::WarpWords& words = cuda_host::gather_words({row, 0, 0, 0, 0, 0}, {__FILE__, __LINE__});
    const int lane = cuda_host::thread_number() % 32;
    for (int matrix = 0; matrix < 4; ++matrix)
        std::memcpy(cuda_host::shared_bytes(words.of[matrix * 8 + lane / 4][0], 16) + lane % 4 * 4,
                    &pairs[matrix], 4);
}
inline uint4 load_shared(unsigned shared) {
    uint4 value;
    std::memcpy(&value, cuda_host::shared_bytes(shared, sizeof value), sizeof value);
    return value;
}
inline void clear_shared(unsigned shared) {
    std::memset(cuda_host::shared_bytes(shared, 16), 0, 16);
}
inline void begin_products() {}
inline void commit_products() {
    cuda_host::commit_products();
}
template <int kRunning>
void wait_for_products() {
    cuda_host::wait_for_products(kRunning);
}
template <bool kTransposeA, bool kTransposeB>
void add_product(Sums& sums, std::uint64_t a, std::uint64_t b, int onto) {
    cuda_host::start_product({a, b, kTransposeA, kTransposeB, onto != 0}, sums);
}

}  // namespace moesaic::hopper
