// What CUDA offers kernels beyond C++, for kernels that g++ compiles: built-in variables, barriers, warp
// operations, shared memory. runtime/cuda/gpu.h includes it where nvcc is not the compiler.
#pragma once

#include <cuda_runtime.h>

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

enum class WarpOperation : std::uint8_t { shuffle, ballot, sync };

void block_barrier(Place place);
/// Waits for the lanes of `mask`; returns what lane `source` brought, or for a ballot the lanes that brought
/// something else than 0.
std::uint64_t meet_warp(WarpOperation operation, unsigned mask, std::uint64_t value, int source, Place place);
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
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}
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
