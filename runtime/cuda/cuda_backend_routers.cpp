#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/kernels/chosen_tokens.h"
#include "runtime/cuda/kernels/elementwise.h"
#include "runtime/cuda/kernels/router_scores.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

using namespace cuda;

void CudaBackend::sigmoid_scores(Stream& stream, const SigmoidScores& op) {
    const Launcher on = checked(stream, &Backend::sigmoid_scores, op);
    with_real(op.logits.dtype, [&]<class T>(TypeTag<T>) {
        on.each_row(op.logits.rows(),
                    kernels::SigmoidRow<T>{in<T>(op.logits), out<T>(op.score), out<T>(op.probability),
                                           out<T>(op.log_sum_exp), op.logits.cols()});
    });
}

void CudaBackend::choose_tokens(Stream& stream, const ChooseTokens& op) {
    const Launcher on = checked(stream, &Backend::choose_tokens, op);
    const i64 tokens = op.scores.rows(), experts = op.scores.cols();
    with_real(op.scores.dtype, [&]<class T>(TypeTag<T>) {
        on.each_block(quotient_up(tokens, op.rows_per_object) * experts,
                      kernels::ChosenTokensColumn<T>{in<T>(op.scores), out<i32>(op.index), tokens, experts,
                                                     op.rows_per_object, op.take});
    });
}

void CudaBackend::sinkhorn(Stream& stream, const Sinkhorn& op) {
    const Launcher on = checked(stream, &Backend::sinkhorn, op);
    const i64 tokens = op.logits.rows(), experts = op.logits.cols(), size = op.rows_per_object;
    const i64 objects = quotient_up(tokens, size);
    const i64 tiles = quotient_up(experts, kernels::kColumnsOfBlock);
    Tensor column = allocate({objects, experts}, DType::f64), factor = allocate({tokens}, DType::f64);
    double *const columns = column.as<double>(), *const factors = factor.as<double>();
    double* const work = out<double>(op.work);
    on.each(column.elements(), kernels::FillElement<double>{1, columns});
    with_real(op.logits.dtype, [&]<class T>(TypeTag<T>) {
        on.each_row(tokens, kernels::SinkhornPowerRow<T>{in<T>(op.logits), work, experts});
    });
    for (i64 iteration = 0; iteration < op.iterations; ++iteration) {
        on.each_row(tokens, kernels::SinkhornFactorRow{work, columns, factors, experts, size});
        on.each_block(objects * tiles,
                      kernels::SinkhornColumnPart{work, factors, columns, tokens, experts, size, tiles});
    }
    with_real(op.logits.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.logits.elements(), kernels::SinkhornScoreElement<T>{in<T>(op.logits), columns,
                                                                       out<T>(op.scores), experts, size});
    });
}

void CudaBackend::noisy_logits(Stream& stream, const NoisyLogits& op) {
    const Launcher on = checked(stream, &Backend::noisy_logits, op);
    with_real(op.clean.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.clean.elements(), kernels::NoisyLogitElement<T>{in<T>(op.clean), in<T>(op.spread),
                                                                   in<T>(op.noise), out<T>(op.logits)});
    });
}

void CudaBackend::noisy_logits_backward(Stream& stream, const NoisyLogitsGrad& op) {
    const Launcher on = checked(stream, &Backend::noisy_logits_backward, op);
    with_real(op.spread.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.spread.elements(),
                kernels::NoisyLogitGradElement<T>{in<T>(op.spread), in<T>(op.noise), in<T>(op.d_logits),
                                                  out<T>(op.d_clean), out<T>(op.d_spread)});
    });
}

void CudaBackend::noisy_load(Stream& stream, const NoisyLoad& op) {
    const Launcher on = checked(stream, &Backend::noisy_load, op);
    with_real(op.clean.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.clean.elements(),
                kernels::NoisyLoadElement<T>{in<T>(op.clean), in<T>(op.spread), in<T>(op.logits),
                                             in<i32>(op.ranked), out<T>(op.probability), op.clean.cols(),
                                             op.ranked.cols() - 1});
    });
}

void CudaBackend::noisy_load_backward(Stream& stream, const NoisyLoadGrad& op) {
    const Launcher on = checked(stream, &Backend::noisy_load_backward, op);
    with_real(op.clean.dtype, [&]<class T>(TypeTag<T>) {
        on.each_row(op.clean.rows(), kernels::NoisyLoadGradRow<T>{.clean = in<T>(op.clean),
                                                                  .spread = in<T>(op.spread),
                                                                  .logits = in<T>(op.logits),
                                                                  .ranked = in<i32>(op.ranked),
                                                                  .factor = in<double>(op.factor),
                                                                  .one_factor = op.factor.rows() == 1,
                                                                  .experts = op.clean.cols(),
                                                                  .choices = op.ranked.cols() - 1,
                                                                  .rows_per_object = op.rows_per_object,
                                                                  .d_clean = out<T>(op.d_clean),
                                                                  .d_spread = out<T>(op.d_spread),
                                                                  .d_logits = out<T>(op.d_logits)});
    });
}

void CudaBackend::prototype_logits(Stream& stream, const PrototypeLogits& op) {
    const Launcher on = checked(stream, &Backend::prototype_logits, op);
    with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
        on.each(op.logits.elements(),
                kernels::PrototypeElement<T>{in<T>(op.x), in<T>(op.prototype), out<Real<T>>(op.logits),
                                             op.prototype.rows(), op.x.cols()});
    });
}

void CudaBackend::prototype_logits_backward(Stream& stream, const PrototypeLogitsGrad& op) {
    const Launcher on = checked(stream, &Backend::prototype_logits_backward, op);
    const i64 rows = op.x.rows(), experts = op.prototype.rows(), width = op.x.cols();
    with_stored(op.x.dtype, [&]<class T>(TypeTag<T>) {
        const T *const x = in<T>(op.x), *const prototype = in<T>(op.prototype);
        const Real<T>* const d_logits = in<Real<T>>(op.d_logits);
        on.each(op.x.elements(),
                kernels::PrototypeInputGradElement<T>{x, prototype, d_logits, out<T>(op.dx), experts, width});
        on.each(op.prototype.elements(),
                kernels::PrototypeGradElement<T>{x, prototype, d_logits, out<Real<T>>(op.d_prototype), rows,
                                                 experts, width});
    });
}

void CudaBackend::balance_bias(Stream& stream, const BalanceBias& op) {
    const Launcher on = checked(stream, &Backend::balance_bias, op);
    with_real(op.bias.dtype, [&]<class T>(TypeTag<T>) {
        on.each_row(1, kernels::BalanceBiasRow<T>{in<i64>(op.counts), out<T>(op.bias), op.bias.elements(),
                                                  op.rate, op.recentre});
    });
}

}  // namespace moesaic
