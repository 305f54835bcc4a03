#include "runtime/cpu/embedding.h"

#include <cstring>

namespace moesaic::cpu {

namespace {

i64 checked_token(ConstTensorView index, i64 row, i64 vocabulary) {
    const i32 token = index.as<i32>()[row];
    MOESAIC_ASSERT(token >= 0 && token < vocabulary, "token {} at {}, vocabulary {}", token, row, vocabulary);
    return token;
}

template <class Real>
void add_rows(const EmbeddingGrad& operation, Range columns) {
    const i64 width = operation.d_table.cols();
    for (i64 row = 0; row < operation.dy.rows(); ++row) {
        const i64 token = checked_token(operation.index, row, operation.d_table.rows());
        const Real* dy = operation.dy.as<Real>() + row * width;
        Real* sum = operation.d_table.as<Real>() + token * width;
        for (i64 column = columns.first; column < columns.last; ++column) sum[column] += dy[column];
    }
}

}  // namespace

void embedding(const Embedding& operation, Range rows) {
    const i64 row_bytes = operation.y.cols() * size_of(operation.y.dtype);
    for (i64 row = rows.first; row < rows.last; ++row) {
        const i64 token = checked_token(operation.index, row, operation.table.rows());
        std::memcpy(static_cast<std::byte*>(operation.y.data) + row * row_bytes,
                    static_cast<const std::byte*>(operation.table.data) + token * row_bytes,
                    static_cast<std::size_t>(row_bytes));
    }
}

void embedding_grad(const EmbeddingGrad& operation, Range columns) {
    if (operation.dy.dtype == DType::f32) {
        add_rows<float>(operation, columns);
    } else {
        add_rows<double>(operation, columns);
    }
}

}  // namespace moesaic::cpu
