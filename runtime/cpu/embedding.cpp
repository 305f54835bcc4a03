#include "runtime/cpu/embedding.h"

#include <cstring>

#include "runtime/bfloat16.h"

namespace moesaic::cpu {

namespace {

i64 checked_token(ConstTensorView index, i64 row, i64 vocabulary) {
    const i32 token = index.as<i32>()[row];
    MOESAIC_ASSERT(token >= 0 && token < vocabulary, "token {} at {}, vocabulary {}", token, row, vocabulary);
    return token;
}

double real_of(double value) {
    return value;
}
float real_of(float value) {
    return value;
}
float real_of(BFloat16 value) {
    return widened(value);
}

template <class Stored, class Real>
void add_rows(const EmbeddingGrad& operation, Range columns) {
    const i64 width = operation.d_table.cols();
    for (i64 row = 0; row < operation.dy.rows(); ++row) {
        const i64 token = checked_token(operation.index, row, operation.d_table.rows());
        const Stored* dy = operation.dy.as<Stored>() + row * width;
        Real* sum = operation.d_table.as<Real>() + token * width;
        for (i64 column = columns.first; column < columns.last; ++column) sum[column] += real_of(dy[column]);
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
        add_rows<float, float>(operation, columns);
    } else if (operation.dy.dtype == DType::bf16) {
        add_rows<BFloat16, float>(operation, columns);
    } else {
        add_rows<double, double>(operation, columns);
    }
}

}  // namespace moesaic::cpu
