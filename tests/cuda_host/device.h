// What CUDA offers kernels beyond C++, for kernels that g++ compiles: built-in variables, barriers, warp
// operations, shared memory. runtime/cuda/gpu.h includes it where nvcc is not the compiler.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <vector>

// Of the thread that runs; the block executor sets them at every switch.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace cuda_host {

struct Place {
    const char* file;
    int line;
};

enum class WarpOperation : std::uint8_t { shuffle, ballot, sync, gather };

void block_barrier(Place place);
/// Waits for the lanes of `mask`; returns what lane `source` brought, or for a ballot the lanes that brought
/// something else than 0.
std::uint64_t meet_warp(WarpOperation operation, unsigned mask, std::uint64_t value, int source, Place place);
/// What all lanes of a whole warp bring.
struct WarpWords {
    static constexpr int kMost = 6;
    std::uint32_t of[32][kMost];
};
/// Valid until the warp's next operation.
const WarpWords& gather_words(const std::uint32_t (&mine)[WarpWords::kMost], Place place);
/// As gpu.h says of multiply_matrices and load_matrices; a lane brings its row of 16 bytes. Products are
/// exact, their sum is in f32 in ascending order, where hardware has one that is not told.
void multiply_matrices(float (&sums)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                       Place place);
void share_matrices(std::uint32_t (&pairs)[4], const std::uint32_t (&row)[4], bool transposed, Place place);
/// A copy of 16 bytes to shared memory that has not begun.
struct PendingCopy {
    void* to;
    const void* from;
};
/// Of the thread that runs. They are done when it waits for them, so that what does not wait finds poison.
std::vector<PendingCopy>& pending_copies();
/// To nearest, ties to even.
std::uint32_t bf16_pair(float first, float second);
/// A block's array: the same memory for every thread that names the same place in the source.
void* shared_array(const void* key, std::size_t bytes, const char* name);
void* dynamic_shared();
/// A kernel with its arguments, which are what they are now.
struct KernelCall {
    const char* text;
    const void* function;
    std::function<void()> thread;
    std::vector<std::byte> parameters;  ///< as a GPU finds them: one after the other, each aligned
};
void launch(const KernelCall& kernel, dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream);

template <class... Parameters, class... Arguments>
KernelCall call_of(const char* text, void (*kernel)(Parameters...), const Arguments&... arguments) {
    const std::tuple<Parameters...> values(arguments...);
    std::vector<std::byte> bytes;
    const auto append = [&]<class T>(const T& value) {
        const std::size_t offset = (bytes.size() + alignof(T) - 1) / alignof(T) * alignof(T);
        bytes.resize(offset + sizeof(T));
        std::memcpy(bytes.data() + offset, &value, sizeof(T));
    };
    std::apply([&](const auto&... value) { (append(value), ...); }, values);
    return {text, reinterpret_cast<const void*>(kernel), [kernel, values] { std::apply(kernel, values); },
            std::move(bytes)};
}

template <class T>
T shuffle(unsigned mask, T value, int source, Place place) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t));
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = meet_warp(WarpOperation::shuffle, mask, bits, source, place);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
/// threadIdx as the number of the thread in its block.
inline int thread_number() {
    return static_cast<int>((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
}

}  // namespace cuda_host

#define __launch_bounds__(...)
#define GPU_KEEP_LOOP
#define GPU_SHARED(T, name, N)        \
    static const char name##_key = 0; \
    T* const name = static_cast<T*>(::cuda_host::shared_array(&name##_key, sizeof(T) * (N), #name))
#define GPU_UNROLL
#define GPU_DYN_SHARED(T, name) T* const name = static_cast<T*>(::cuda_host::dynamic_shared())
#define GPU_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    ::cuda_host::launch(::cuda_host::call_of(#kernel, kernel, __VA_ARGS__), grid, block, shared_bytes, stream)
#define CUDA_HOST_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_HOST_PLACE) {
    ::cuda_host::block_barrier({file, line});
}
inline void __syncwarp(unsigned mask = ~0u, CUDA_HOST_PLACE) {
    ::cuda_host::meet_warp(::cuda_host::WarpOperation::sync, mask, 0, 0, {file, line});
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, CUDA_HOST_PLACE) {
    return ::cuda_host::shuffle(mask, value, source & 31, {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, CUDA_HOST_PLACE) {
    return ::cuda_host::shuffle(mask, value, (::cuda_host::thread_number() & 31) ^ lanes, {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, CUDA_HOST_PLACE) {
    const int lane = ::cuda_host::thread_number() & 31, source = lane + static_cast<int>(lanes);
    return ::cuda_host::shuffle(mask, value, source > 31 ? lane : source, {file, line});
}
/// Of all lanes. Not GPU's way to it, but its result.
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, CUDA_HOST_PLACE) {
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        const unsigned other = __shfl_xor_sync(mask, value, lanes, file, line);
        value = value < other ? other : value;
    }
    return value;
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, CUDA_HOST_PLACE) {
    return ~__reduce_max_sync(mask, ~value, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_HOST_PLACE) {
    return static_cast<unsigned>(
        ::cuda_host::meet_warp(::cuda_host::WarpOperation::ballot, mask, predicate != 0, 0, {file, line}));
}
inline int __any_sync(unsigned mask, int predicate, CUDA_HOST_PLACE) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline long long __double_as_longlong(double value) {
    long long bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline int __popc(unsigned bits) {
    return __builtin_popcount(bits);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}
namespace gpu {

inline void multiply_matrices(float& s0, float& s1, float& s2, float& s3, const unsigned (&a)[4], unsigned b0,
                              unsigned b1, CUDA_HOST_PLACE) {
    float sums[4] = {s0, s1, s2, s3};
    ::cuda_host::multiply_matrices(sums, a, b0, b1, {file, line});
    s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
}
struct alignas(16) Bytes {
    std::uint32_t words[4];
};
/// Read and written whole, which the memory checker sees.
inline Bytes load_16_bytes(const void* from) {
    Bytes bytes;
    std::memcpy(&bytes, __builtin_assume_aligned(from, 16), sizeof bytes);
    return bytes;
}
inline void store_16_bytes(void* to, const Bytes& bytes) {
    std::memcpy(__builtin_assume_aligned(to, 16), &bytes, sizeof bytes);
}
inline void load_matrices(unsigned (&pairs)[4], const void* row, CUDA_HOST_PLACE) {
    ::cuda_host::share_matrices(pairs, load_16_bytes(row).words, false, {file, line});
}
inline void load_transposed(unsigned (&pairs)[4], const void* row, CUDA_HOST_PLACE) {
    ::cuda_host::share_matrices(pairs, load_16_bytes(row).words, true, {file, line});
}
inline void copy_16_bytes(void* shared, const void* global) {
    ::cuda_host::pending_copies().push_back({shared, global});
}
inline void clear_16_bytes(void* shared) {
    store_16_bytes(shared, {});
}
inline void wait_for_copies() {
    for (const ::cuda_host::PendingCopy& copy : ::cuda_host::pending_copies())
        store_16_bytes(copy.to, load_16_bytes(copy.from));
    ::cuda_host::pending_copies().clear();
}
template <class Vector>
void store_whole(Vector* to, const Vector& value) {
    *to = value;
}
inline unsigned bf16_pair(float first, float second) {
    return ::cuda_host::bf16_pair(first, second);
}
inline float power_of_2(float x) {
    return std::exp2(x);
}

}  // namespace gpu

/// For the memory checker, which would see an atomic operation as a read and a write.
namespace cuda_host {
void note_atomic(const void* data, std::size_t bytes, Place place);
}
template <class T>
[[gnu::noinline, gnu::no_sanitize("thread")]] T atomicAdd(T* where, T value, CUDA_HOST_PLACE) {
    ::cuda_host::note_atomic(where, sizeof(T), {file, line});
    const T before = *where;  // no switch can come between
    *where = before + value;
    return before;
}
