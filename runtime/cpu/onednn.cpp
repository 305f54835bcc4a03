#include "runtime/cpu/onednn.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

#include "runtime/base/error.h"
#include "runtime/cpu/gemm_tasks.h"
#include "runtime/cpu/scratch.h"

namespace moesaic {

namespace {

/// The beginning of dnnl_version_t.
struct Version {
    int major, minor, patch;
};

OneDnnResult open_library() {
    const char* const named = std::getenv(kOneDnnVariable);
    void* handle = nullptr;
    std::string problem;
    for (const char* file : {"libdnnl.so.3", "libdnnl.so.2", "libdnnl.so"}) {
        handle = dlopen(named ? named : file, RTLD_NOW | RTLD_LOCAL);
        if (handle || named) break;
    }
    if (!handle && named)
        problem = fmt::format("{} names {}, which cannot be opened: {}", kOneDnnVariable, named, dlerror());
    if (!handle && !named) problem = "this machine has no libdnnl.so.3 or libdnnl.so.2";
    static OneDnn library;
    if (handle) {
        library.product = reinterpret_cast<OneDnn::Product>(dlsym(handle, "dnnl_sgemm"));
        library.set_threads = reinterpret_cast<void (*)(int)>(dlsym(handle, "omp_set_num_threads"));
        const auto version = reinterpret_cast<const Version* (*)()>(dlsym(handle, "dnnl_version"));
        if (version)
            library.name =
                fmt::format("oneDNN {}.{}.{}", version()->major, version()->minor, version()->patch);
        if (!library.product || !version)
            problem = fmt::format("{} has no dnnl_sgemm", named ? named : "libdnnl.so");
    }
    if (problem.empty()) return {&library, {}};
    return {nullptr, problem + "; install oneDNN (Debian: apt-get install libdnnl2)"};
}

/// Rows and columns of one product's result.
struct Block {
    const MatrixProduct<float>* product;
    i64 first_row, rows, first_column, columns;
};

/// An operand as dnnl_sgemm takes it.
struct Dense {
    char transposed;
    const float* data;
    i64 stride;
};

/// [rows, columns] of an operand; where an index names one of the two, a copy in its order.
Dense dense(const StridedOperand<float>& operand, i64 rows, i64 columns, ScratchSlot slot) {
    const bool by_rows = operand.column_stride == 1 && !operand.column_index;
    const i64 lines = by_rows ? rows : columns, length = by_rows ? columns : rows;
    const char transposed = by_rows ? 'N' : 'T';
    if (!operand.row_index && !operand.column_index) {
        // A single line may follow its neighbours more closely than dnnl_sgemm allows.
        return {transposed, operand.data,
                std::max({by_rows ? operand.row_stride : operand.column_stride, length, i64{1}})};
    }
    float* const copy = scratch<float>(slot, lines * length);
    for (i64 line = 0; line < lines; ++line)
        std::copy_n(by_rows ? operand.row(line) : operand.column(line), length, copy + line * length);
    return {transposed, copy, std::max<i64>(length, 1)};
}

/// c [rows, columns] (+)= the product's addends [first, first + p) of a block.
void multiply_block(const OneDnn& library, const Block& block, i64 first, i64 p, float* c, i64 c_stride,
                    bool accumulate) {
    const MatrixProduct<float>& product = *block.product;
    const Dense a =
        dense(product.a.real.from(block.first_row, first), block.rows, p, ScratchSlot::packed_rows);
    const Dense b =
        dense(product.b.real.from(first, block.first_column), p, block.columns, ScratchSlot::packed_columns);
    const int status = library.product(a.transposed, b.transposed, block.rows, block.columns, p, 1, a.data,
                                       a.stride, b.data, b.stride, accumulate ? 1 : 0, c, c_stride);
    MOESAIC_ASSERT(status == 0, "dnnl_sgemm of {} x {} x {}: status {}", block.rows, block.columns, p,
                   status);
}

/// Adds a block's results, dense, to the product's sums.
template <class Sum>
void add_part(const Block& block, const float* part, Sum* sums) {
    for (i64 row = 0; row < block.rows; ++row, part += block.columns) {
        Sum* const sum = sums + (block.first_row + row) * block.product->n + block.first_column;
        for (i64 j = 0; j < block.columns; ++j) sum[j] += static_cast<Sum>(part[j]);
    }
}

void run(const OneDnn& library, const Block& block) {
    if (library.set_threads) library.set_threads(1);  // the number is each calling thread's own
    const MatrixProduct<float>& product = *block.product;
    if (!product.sum) {
        float* const c = product.c + block.first_row * product.c_row_stride + block.first_column;
        for (i64 row = 0; product.p == 0 && row < block.rows; ++row)
            std::fill_n(c + row * product.c_row_stride, block.columns, 0.0F);
        if (product.p == 0) return;
        return multiply_block(library, block, 0, product.p, c, product.c_row_stride, product.accumulate);
    }
    float* const part = scratch<float>(ScratchSlot::partial_sums, block.rows * block.columns);
    i64 first = 0;
    for (const i64 extent : product.parts) {
        if (extent == 0) continue;
        multiply_block(library, block, first, extent, part, block.columns, false);
        if (product.sum.wide) add_part(block, part, product.sum.wide);
        if (product.sum.real) add_part(block, part, product.sum.real);
        first += extent;
    }
}

constexpr i64 kPiecesPerThread = 3;  // of many products; oneDNN copies b once more for each
constexpr i64 kLeastRows = 32;       // of a piece; of less, columns are cut

double work_of(const MatrixProduct<float>& product) {
    return static_cast<double>(product.m) * static_cast<double>(product.n) * static_cast<double>(product.p);
}

}  // namespace

const OneDnnResult& onednn_library() {
    static const OneDnnResult result = open_library();
    return result;
}

void multiply_all_by(const OneDnn& library, ThreadPool& pool,
                     std::span<const MatrixProduct<float>> products) {
    double work = 0;
    for (const MatrixProduct<float>& product : products) work += work_of(product);
    const i64 most = pool.threads() == 1 ? 1 : pool.threads() * (products.size() == 1 ? 1 : kPiecesPerThread);
    Block* const blocks = scratch<Block>(ScratchSlot::slices, std::ssize(products) * most);
    i64 count = 0;
    for (const MatrixProduct<float>& product : products) {
        if (product.m == 0 || product.n == 0) continue;
        if (product.p == 0 && (product.accumulate || product.sum)) continue;
        MOESAIC_ASSERT(is_for_library(product) && !product.packed_b, "not a product for oneDNN");
        const double share = work > 0 ? work_of(product) / work : 1;
        const i64 wanted =
            std::clamp<i64>(static_cast<i64>(share * static_cast<double>(most) + 0.5), 1, most);
        const bool by_rows = product.m >= kLeastRows * wanted;
        const i64 extent = by_rows ? product.m : product.n, pieces = std::min(wanted, extent);
        for (i64 piece = 0; piece < pieces; ++piece) {
            const i64 first = extent * piece / pieces, size = extent * (piece + 1) / pieces - first;
            blocks[count++] = by_rows ? Block{&product, first, size, 0, product.n}
                                      : Block{&product, 0, product.m, first, size};
        }
    }
    pool.parallel_for(count, [&](i64 block) { run(library, blocks[block]); });
}

}  // namespace moesaic
