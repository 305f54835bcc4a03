// Plain loops: a row has a few outputs, and a batch's losses are no part of its time.
#include "runtime/cpu/squared_error.h"

#include "runtime/cpu/element_types.h"

namespace moesaic::cpu {

void squared_error(const SquaredError& operation, Range rows) {
    with_real(operation.output.dtype, [&](auto real) {
        using Real = decltype(real);
        const i64 outputs = operation.output.cols();
        for (i64 row = rows.first; row < rows.last; ++row) {
            double sum = 0;
            for (i64 i = row * outputs; i < (row + 1) * outputs; ++i) {
                const double difference =
                    static_cast<double>(operation.output.as<Real>()[i]) - operation.target.as<double>()[i];
                sum += difference * difference;
            }
            operation.loss.as<double>()[row] = sum / static_cast<double>(outputs);
        }
    });
}

void squared_error_grad(const SquaredErrorGrad& operation, Range rows) {
    with_real(operation.output.dtype, [&](auto real) {
        using Real = decltype(real);
        const i64 outputs = operation.output.cols();
        const double factor = operation.scale * 2 / static_cast<double>(outputs);
        for (i64 i = rows.first * outputs; i < rows.last * outputs; ++i) {
            const double difference =
                static_cast<double>(operation.output.as<Real>()[i]) - operation.target.as<double>()[i];
            operation.d_output.as<Real>()[i] = static_cast<Real>(factor * difference);
        }
    });
}

}  // namespace moesaic::cpu
