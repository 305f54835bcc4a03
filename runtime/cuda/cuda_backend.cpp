#include "runtime/cuda/cuda_backend.h"

#include <array>
#include <bit>
#include <cmath>

#include "runtime/bfloat16.h"
#include "runtime/cpu/operand_checker.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/hopper/grouped_products.h"
#include "runtime/cuda/kernels/elementwise.h"
#include "runtime/cuda/launching.h"
#include "runtime/cuda/managed_memory.h"

namespace moesaic {

using namespace cuda;

namespace {

/// Whether whole quads may be taken of operands that are as long as each other; what is left of the last is
/// not whole.
template <class... Elements>
bool begin_whole(const Elements*... operands) {
    return are_whole_quads(0, operands...);
}

void select_device(int device) {
    check(cudaSetDevice(device), "choosing a device");
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, device), "asking a device");
    if (!properties.concurrentManagedAccess)
        throw Error(
            fmt::format("CUDA: {} cannot share memory with the host while it computes", properties.name));
}

}  // namespace

CudaBackend::CudaBackend(int device)
    : pool_(device_with_memory()),
      checker_(make_operand_checker(Device::cuda)),
      checker_stream_(checker_->make_stream("checks")) {
    select_device(device);
    hopper_multiprocessors_ = hopper::multiprocessors_for_grouped_products();
}

std::unique_ptr<Stream> CudaBackend::make_stream(std::string_view name) {
    return std::make_unique<CudaStream>(name);
}

CudaStream& CudaBackend::mine(Stream& stream) {
    auto* const mine = dynamic_cast<CudaStream*>(&stream);
    MOESAIC_ASSERT(mine, "stream '{}' is no GPU's", stream.name());
    return *mine;
}

void CudaBackend::upload(Stream& stream, const void* data, i64 bytes, Tensor& room) {
    room = allocate({bytes / 8}, DType::int64);
    check(cudaMemcpyAsync(room.as<i64>(), data, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice,
                          mine(stream).handle()),
          "copying numbers to the device");
}

// Either side may be any memory of the host: what is read elsewhere than here needs no device.
void CudaBackend::copy(Stream& stream, ConstTensorView from, TensorView to) {
    MOESAIC_ASSERT(from.elements() == to.elements() && from.dtype == to.dtype, "copy {} {} to {} {}",
                   name_of(from.dtype), from.shape.text(), name_of(to.dtype), to.shape.text());
    if (from.bytes() == 0) return;
    if (to.device == Device::cpu) stream.synchronize();  // the copy would wait too, but unwatched
    check(cudaMemcpyAsync(to.data, from.data, static_cast<std::size_t>(from.bytes()), cudaMemcpyDefault,
                          mine(stream).handle()),
          "copying");
}

void CudaBackend::zero(Stream& stream, TensorView y) {
    const Launcher on = checked(stream, &Backend::zero, y);
    if (y.bytes() > 0)
        check(cudaMemsetAsync(y.data, 0, static_cast<std::size_t>(y.bytes()), on.stream), "zeroing");
}

void CudaBackend::fill(Stream& stream, double value, TensorView y) {
    const Launcher on = checked(stream, &Backend::fill, value, y);
    with_real(y.dtype, [&]<class T>(TypeTag<T>) {
        on.each(y.elements(), kernels::FillElement<T>{static_cast<T>(value), out<T>(y)});
    });
}

void CudaBackend::add(Stream& stream, ConstTensorView x, TensorView y) {
    const Launcher on = checked(stream, &Backend::add, x, y);
    with_stored(y.dtype, [&]<class T>(TypeTag<T>) {
        with_quads<T>(begin_whole(in<T>(x), in<T>(y)), [&](auto whole) {
            on.each_quad(y.elements(), kernels::AddQuads<T, whole>{in<T>(x), out<T>(y)});
        });
    });
}

void CudaBackend::fold(Stream& stream, TensorView part, TensorView sum, const FoldRounding& rounding) {
    const Launcher on = checked(stream, &Backend::fold, part, sum, rounding);
    with_real(part.dtype, [&]<class T>(TypeTag<T>) {
        with_quads<T>(begin_whole(in<T>(part), in<double>(sum)), [&](auto whole) {
            on.each_quad(part.elements(), kernels::FoldQuads<T, whole>{out<T>(part), out<double>(sum),
                                                                       rounding.step, rounding.limit});
        });
    });
}

void CudaBackend::convert(Stream& stream, ConstTensorView from, TensorView to) {
    const Launcher on = checked(stream, &Backend::convert, from, to);
    with_stored(from.dtype, [&]<class From>(TypeTag<From>) {
        with_stored(to.dtype, [&]<class To>(TypeTag<To>) {
            constexpr bool widens = std::is_same_v<To, double> && !std::is_same_v<From, double>;
            if constexpr (!widens) {  // which the checks refuse
                using Narrower = std::conditional_t<std::is_same_v<To, double>, double, float>;
                with_quads<Narrower>(begin_whole(in<From>(from), in<To>(to)), [&](auto whole) {
                    on.each_quad(to.elements(),
                                 kernels::ConvertQuads<From, To, whole>{in<From>(from), out<To>(to)});
                });
            }
        });
    });
}

void CudaBackend::scale(Stream& stream, double factor, TensorView y) {
    const Launcher on = checked(stream, &Backend::scale, factor, y);
    with_stored(y.dtype, [&]<class T>(TypeTag<T>) {
        with_quads<T>(begin_whole(in<T>(y)), [&](auto whole) {
            on.each_quad(y.elements(),
                         kernels::ScaleQuads<T, whole>{static_cast<Real<T>>(factor), out<T>(y)});
        });
    });
}

void CudaBackend::clamp(Stream& stream, double limit, TensorView y) {
    const Launcher on = checked(stream, &Backend::clamp, limit, y);
    with_stored(y.dtype, [&]<class T>(TypeTag<T>) {
        with_quads<T>(begin_whole(in<T>(y)), [&](auto whole) {
            on.each_quad(y.elements(), kernels::ClampQuads<T, whole>{
                                           static_cast<Real<T>>(rounded_to(y.dtype, limit)), out<T>(y)});
        });
    });
}

void CudaBackend::clamp_grad(Stream& stream, double limit, ConstTensorView y, TensorView dy) {
    const Launcher on = checked(stream, &Backend::clamp_grad, limit, y, dy);
    with_stored(y.dtype, [&]<class T>(TypeTag<T>) {
        with_quads<T>(begin_whole(in<T>(y), in<T>(dy)), [&](auto whole) {
            on.each_quad(y.elements(),
                         kernels::ClampGradQuads<T, whole>{static_cast<Real<T>>(rounded_to(y.dtype, limit)),
                                                           in<T>(y), out<T>(dy)});
        });
    });
}

void CudaBackend::multiply_elements(Stream& stream, const MultiplyElements& op) {
    const Launcher on = checked(stream, &Backend::multiply_elements, op);
    with_stored(op.y.dtype, [&]<class T>(TypeTag<T>) {
        const Real<T>* const factor = in<Real<T>>(op.factor);
        with_quads<T>(begin_whole(in<T>(op.x), factor, in<T>(op.y)), [&](auto whole) {
            on.each_quad(op.y.elements(),
                         kernels::MultiplyQuads<T, whole>{in<T>(op.x), factor, out<T>(op.y), op.accumulate});
        });
    });
}

void CudaBackend::random_fill(Stream& stream, const RandomFill& op) {
    const Launcher on = checked(stream, &Backend::random_fill, op);
    const auto [key0, key1] = std::bit_cast<std::array<u32, 2>>(op.random);  // it is its key
    with_real(op.values.dtype, [&, key0 = key0, key1 = key1]<class T>(TypeTag<T>) {
        on.each(op.values.elements(), kernels::RandomElement<T>{key0, key1, op.first, op.normal, op.low,
                                                                op.high, out<T>(op.values)});
    });
}

void CudaBackend::adamw(Stream& stream, const AdamW& op) {
    const Launcher on = checked(stream, &Backend::adamw, op);
    const auto step = static_cast<double>(op.step);
    with_real(op.parameter.dtype, [&]<class T>(TypeTag<T>) {
        const bool are_whole =
            begin_whole(in<T>(op.parameter), in<T>(op.first_moment), in<T>(op.second_moment),
                        in<T>(op.gradient), out_or_null<Bf16>(op.rounded));
        with_quads<T>(are_whole, [&](auto whole) {
            on.each_quad(op.parameter.elements(),
                         kernels::AdamWQuads<T, whole>{
                             .parameter = out<T>(op.parameter),
                             .first_moment = out<T>(op.first_moment),
                             .second_moment = out<T>(op.second_moment),
                             .gradient = in<T>(op.gradient),
                             .rounded = out_or_null<Bf16>(op.rounded),
                             .gradient_scale = static_cast<T>(op.grad_scale),
                             .decay = static_cast<T>(1 - op.lr * op.weight_decay),
                             .beta1 = static_cast<T>(op.beta1),
                             .one_minus_beta1 = static_cast<T>(1 - op.beta1),
                             .beta2 = static_cast<T>(op.beta2),
                             .one_minus_beta2 = static_cast<T>(1 - op.beta2),
                             .eps = static_cast<T>(op.eps),
                             .step_size = static_cast<T>(op.lr / (1 - std::pow(op.beta1, step))),
                             .root_correction = static_cast<T>(std::sqrt(1 - std::pow(op.beta2, step)))});
        });
    });
}

void CudaBackend::block_sum_squares(Stream& stream, ConstTensorView values, i64 block, TensorView sums) {
    const Launcher on = checked(stream, &Backend::block_sum_squares, values, block, sums);
    with_real(values.dtype, [&]<class T>(TypeTag<T>) {
        with_quads<T>(are_whole_quads(block, in<T>(values)), [&](auto whole) {
            on.each_row_of(
                sums.elements(), block,
                kernels::SquaresRow<T, whole>{in<T>(values), values.elements(), block, out<double>(sums)});
        });
    });
}

}  // namespace moesaic
