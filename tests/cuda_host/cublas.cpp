// The functions of cuBLAS that the back end calls: plain loops behind the library's own checks.
#include <cublas_v2.h>
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/streams.h"

struct cublasContext {
    cudaStream_t stream = nullptr;
};

namespace {

using cuda_host::DeviceMemory;
using cuda_host::Scheduler;

/// One product as cuBLAS sees it, columns first: c [m,n] = alpha op(a) [m,k] op(b) [k,n] + beta c.
struct Product {
    cublasOperation_t trans_a, trans_b;
    int m, n, k;
    double alpha, beta;
    const void* a;
    cudaDataType type_a;
    int lda;
    const void* b;
    cudaDataType type_b;
    int ldb;
    void* c;
    cudaDataType type_c;
    int ldc;
};

constexpr std::uintptr_t kVector = 16;  // bytes that cuBLAS may read at once

std::size_t size_of(cudaDataType type) {
    return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2;
}

double load(const void* data, cudaDataType type, std::size_t i) {
    if (type == CUDA_R_64F) return static_cast<const double*>(data)[i];
    if (type == CUDA_R_32F) return static_cast<double>(static_cast<const float*>(data)[i]);
    const unsigned bits = static_cast<unsigned>(static_cast<const std::uint16_t*>(data)[i]) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return static_cast<double>(value);
}

void store(void* data, cudaDataType type, std::size_t i, double value) {
    if (type == CUDA_R_64F) {
        static_cast<double*>(data)[i] = value;
        return;
    }
    const float narrow = static_cast<float>(value);
    if (type == CUDA_R_32F) {
        static_cast<float*>(data)[i] = narrow;
        return;
    }
    unsigned bits;
    std::memcpy(&bits, &narrow, sizeof bits);
    const bool nan = narrow != narrow;
    bits = nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
    static_cast<std::uint16_t*>(data)[i] = static_cast<std::uint16_t>(bits >> 16);
}

/// Of a matrix of `columns` columns, the bytes that are touched.
std::size_t extent(int rows, int columns, int ld, cudaDataType type) {
    if (rows == 0 || columns == 0) return 0;
    return (static_cast<std::size_t>(columns - 1) * static_cast<std::size_t>(ld) +
            static_cast<std::size_t>(rows)) *
           size_of(type);
}

/// What cuBLAS refuses or would crash on; empty if all is well.
std::string mistakes(const Product& p) {
    const bool ta = p.trans_a == CUBLAS_OP_T, tb = p.trans_b == CUBLAS_OP_T;
    if (p.m < 0 || p.n < 0 || p.k < 0) return "negative sizes";
    if (p.lda < std::max(1, ta ? p.k : p.m) || p.ldb < std::max(1, tb ? p.n : p.k) ||
        p.ldc < std::max(1, p.m))
        return fmt::format("leading dimensions {}, {}, {} for m {} n {} k {}", p.lda, p.ldb, p.ldc, p.m, p.n,
                           p.k);
    const auto inside = [](const void* data, std::size_t bytes) {
        return bytes == 0 || DeviceMemory::instance().contains(data, bytes);
    };
    if (!inside(p.a, extent(ta ? p.k : p.m, ta ? p.m : p.k, p.lda, p.type_a))) return "a leaves its block";
    if (!inside(p.b, extent(tb ? p.n : p.k, tb ? p.k : p.n, p.ldb, p.type_b))) return "b leaves its block";
    if (!inside(p.c, extent(p.m, p.n, p.ldc, p.type_c))) return "c leaves its block";
    return {};
}

/// An operand with its inner extent in consecutive memory.
template <class Real>
std::vector<Real> gathered(const void* data, cudaDataType type, int ld, bool inner_first, int outer,
                           int inner) {
    std::vector<Real> values(static_cast<std::size_t>(outer) * static_cast<std::size_t>(inner));
    for (int o = 0; o < outer; ++o) {
        for (int i = 0; i < inner; ++i) {
            const auto row = static_cast<std::size_t>(inner_first ? i : o);
            const auto column = static_cast<std::size_t>(inner_first ? o : i);
            values[static_cast<std::size_t>(o) * static_cast<std::size_t>(inner) +
                   static_cast<std::size_t>(i)] =
                static_cast<Real>(load(data, type, column * static_cast<std::size_t>(ld) + row));
        }
    }
    return values;
}

/// Sums in ascending order: as good as any order that cuBLAS may choose.
template <class Real>
void multiply_as(const Product& p) {
    const std::vector<Real> a = gathered<Real>(p.a, p.type_a, p.lda, p.trans_a == CUBLAS_OP_T, p.m, p.k);
    const std::vector<Real> b = gathered<Real>(p.b, p.type_b, p.ldb, p.trans_b == CUBLAS_OP_N, p.n, p.k);
    for (int column = 0; column < p.n; ++column) {
        for (int row = 0; row < p.m; ++row) {
            const std::size_t at = static_cast<std::size_t>(column) * static_cast<std::size_t>(p.ldc) +
                                   static_cast<std::size_t>(row);
            const Real* const left = a.data() + static_cast<std::size_t>(row) * static_cast<std::size_t>(p.k);
            const Real* const right =
                b.data() + static_cast<std::size_t>(column) * static_cast<std::size_t>(p.k);
            Real sum = p.beta == 0 ? Real{0} : static_cast<Real>(p.beta * load(p.c, p.type_c, at));
            for (int i = 0; i < p.k; ++i) sum += left[i] * right[i];
            store(p.c, p.type_c, at, static_cast<double>(sum));
        }
    }
}

void note(const void* data, cudaDataType type, int rows, int columns, int ld, cuda_host::Access access) {
    cuda_host::Checker* const checker = cuda_host::Checker::active();
    for (int column = 0; checker && column < columns; ++column)
        checker->item_access(static_cast<const char*>(data) + static_cast<std::size_t>(column) *
                                                                  static_cast<std::size_t>(ld) *
                                                                  size_of(type),
                             static_cast<std::size_t>(rows) * size_of(type), access);
}

void multiply(const Product& p) {
    using cuda_host::Access;
    const bool ta = p.trans_a == CUBLAS_OP_T, tb = p.trans_b == CUBLAS_OP_T;
    note(p.a, p.type_a, ta ? p.k : p.m, ta ? p.m : p.k, p.lda, Access::read);
    note(p.b, p.type_b, tb ? p.n : p.k, tb ? p.k : p.n, p.ldb, Access::read);
    if (p.beta != 0) note(p.c, p.type_c, p.m, p.n, p.ldc, Access::read);
    note(p.c, p.type_c, p.m, p.n, p.ldc, Access::write);
    if (p.type_c == CUDA_R_64F) {
        multiply_as<double>(p);
    } else {
        multiply_as<float>(p);
    }
}

bool is_known(cudaDataType a, cudaDataType b, cudaDataType c, cublasComputeType_t compute) {
    if (compute == CUBLAS_COMPUTE_64F) return a == CUDA_R_64F && b == a && c == a;
    if (compute != CUBLAS_COMPUTE_32F || a != b) return false;
    return (a == CUDA_R_32F && c == a) || (a == CUDA_R_16BF && (c == a || c == CUDA_R_32F));
}

double factor_of(const void* factor, cublasComputeType_t compute) {
    return compute == CUBLAS_COMPUTE_64F ? *static_cast<const double*>(factor)
                                         : static_cast<double>(*static_cast<const float*>(factor));
}

cublasStatus_t refuse(const std::string& what) {
    Scheduler::instance().find("cuBLAS: " + what);
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t enqueue(cublasHandle_t handle, std::function<void()> work) {
    const cudaError_t error = Scheduler::instance().enqueue(
        handle->stream, {.work = std::move(work), .what = "a product of cuBLAS"});
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
    *handle = new cublasContext;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) {
    return CUBLAS_STATUS_SUCCESS;
}
const char* cublasGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_SUCCESS ? "success" : "an error of the emulated cuBLAS";
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t trans_a, cublasOperation_t trans_b,
                            int m, int n, int k, const void* alpha, const void* a, cudaDataType type_a,
                            int lda, const void* b, cudaDataType type_b, int ldb, const void* beta, void* c,
                            cudaDataType type_c, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t) {
    const std::scoped_lock lock(Scheduler::instance().mutex);
    if (!is_known(type_a, type_b, type_c, compute)) return CUBLAS_STATUS_NOT_SUPPORTED;
    const Product product{trans_a,
                          trans_b,
                          m,
                          n,
                          k,
                          factor_of(alpha, compute),
                          factor_of(beta, compute),
                          a,
                          type_a,
                          lda,
                          b,
                          type_b,
                          ldb,
                          c,
                          type_c,
                          ldc};
    if (const std::string mistake = mistakes(product); !mistake.empty()) return refuse("GemmEx: " + mistake);
    return enqueue(handle, [product] { multiply(product); });
}

// Sizes are the host's and read at once; the arrays of pointers are the device's and read when it runs.
cublasStatus_t cublasGemmGroupedBatchedEx(cublasHandle_t handle, const cublasOperation_t trans_a[],
                                          const cublasOperation_t trans_b[], const int m[], const int n[],
                                          const int k[], const void* alpha, const void* const a[],
                                          cudaDataType_t type_a, const int lda[], const void* const b[],
                                          cudaDataType_t type_b, const int ldb[], const void* beta,
                                          void* const c[], cudaDataType_t type_c, const int ldc[], int groups,
                                          const int size[], cublasComputeType_t compute) {
    const std::scoped_lock lock(Scheduler::instance().mutex);
    if (!is_known(type_a, type_b, type_c, compute) || type_a != type_c) return CUBLAS_STATUS_NOT_SUPPORTED;
    std::vector<Product> products;
    const std::size_t factor_bytes = compute == CUBLAS_COMPUTE_64F ? 8 : 4;
    for (int group = 0; group < groups; ++group) {
        const auto offset = static_cast<std::size_t>(group) * factor_bytes;
        for (int i = 0; i < size[group]; ++i)
            products.push_back({trans_a[group], trans_b[group], m[group], n[group], k[group],
                                factor_of(static_cast<const char*>(alpha) + offset, compute),
                                factor_of(static_cast<const char*>(beta) + offset, compute), nullptr, type_a,
                                lda[group], nullptr, type_b, ldb[group], nullptr, type_c, ldc[group]});
    }
    if (!DeviceMemory::instance().contains(a, products.size() * sizeof *a) ||
        !DeviceMemory::instance().contains(b, products.size() * sizeof *b) ||
        !DeviceMemory::instance().contains(c, products.size() * sizeof *c))
        return refuse("GemmGroupedBatchedEx: the arrays of pointers are not in device memory");
    return enqueue(handle, [=] {
        for (std::size_t i = 0; i < products.size(); ++i) {
            Product product = products[i];
            product.a = a[i];
            product.b = b[i];
            product.c = c[i];
            std::string mistake = mistakes(product);
            for (const void* pointer : {product.a, product.b, static_cast<const void*>(product.c)})
                if (reinterpret_cast<std::uintptr_t>(pointer) % kVector != 0)
                    mistake = "a pointer is no multiple of 16 bytes, which only the host could have seen";
            if (!mistake.empty()) throw std::runtime_error("cuBLAS: GemmGroupedBatchedEx: " + mistake);
            multiply(product);
        }
    });
}

}  // extern "C"
