// oneDNN's fp32 product in place of our kernels (cpu.gemm: onednn), from a library that is opened at run
// time.
#pragma once

#include <span>
#include <string>

#include "runtime/backend.h"
#include "runtime/cpu/gemm.h"

namespace moesaic {

inline constexpr const char* kOneDnnVariable = "MOESAIC_ONEDNN";  ///< names the library, where it is set

/// What is called of the library. The function's type is that of oneDNN 1 to 3.
struct OneDnn {
    /// dnnl_sgemm: c [m,n] = alpha op(a) op(b) + beta c, row-major, op by 'N' or 'T'; 0 on success.
    using Product = int (*)(char trans_a, char trans_b, i64 m, i64 n, i64 k, float alpha, const float* a,
                            i64 a_stride, const float* b, i64 b_stride, float beta, float* c, i64 c_stride);
    Product product = nullptr;
    /// omp_set_num_threads of the OpenMP that it stands on; null where it stands on another.
    void (*set_threads)(int) = nullptr;
    std::string name;  ///< "oneDNN 2.6.3"
};

struct OneDnnResult {
    const OneDnn* library = nullptr;
    std::string problem;  ///< why there is none, as a sentence with its remedy
};
/// Opened once; the environment's MOESAIC_ONEDNN may name the file.
[[nodiscard]] const OneDnnResult& onednn_library();

/// A product of floats alone, on whose result no work waits.
[[nodiscard]] inline bool is_for_library(const MatrixProduct<float>& product) {
    return !product.a.is_narrow() && !product.b.is_narrow() && !product.work && !product.rounded_c;
}
/// As multiply_all, of such products, but that a sum's order is oneDNN's and may depend on the extents: equal
/// to rounding only. They are cut among the pool's threads, oneDNN computes each piece on one.
void multiply_all_by(const OneDnn& library, ThreadPool& pool, std::span<const MatrixProduct<float>> products);

/// The CPU back end with its fp32 products computed by the library; weights are not packed beforehand.
[[nodiscard]] std::unique_ptr<Backend> make_cpu_backend_on(const OneDnn& library, int threads,
                                                           StreamMode mode = StreamMode::inline_execution,
                                                           u64 shuffle_seed = 0);

}  // namespace moesaic
