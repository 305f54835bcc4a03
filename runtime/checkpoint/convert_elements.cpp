#include "runtime/checkpoint/convert_elements.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/device_memory.h"

namespace moesaic {

namespace {

double widened(double value) {
    return value;
}
double widened(float value) {
    return static_cast<double>(value);
}
double widened(BFloat16 value) {
    return static_cast<double>(std::bit_cast<float>(static_cast<u32>(value.bits) << 16));
}

void narrow(double value, double& result) {
    result = value;
}
void narrow(double value, float& result) {
    result = static_cast<float>(value);
}
void narrow(double value, BFloat16& result) {
    if (std::isnan(value)) {
        result.bits = 0x7fc0;
        return;
    }
    // Rounding to f32 first must not turn a value beside a tie into the tie: keep the lost part as a sticky
    // bit.
    float nearest = static_cast<float>(value);
    u32 bits = std::bit_cast<u32>(nearest);
    const double lost = value - static_cast<double>(nearest);
    if (std::isfinite(nearest) && lost != 0 && (bits & 0xffffu) == 0x8000u) {
        const bool outward = (lost > 0) == (value > 0);
        bits = outward ? bits + 1 : bits - 1;
    }
    if (std::isfinite(nearest)) bits += 0x7fffu + ((bits >> 16) & 1u);
    result.bits = static_cast<std::uint16_t>(bits >> 16);
}

template <class From, class To>
void convert(const std::byte* source, const TensorView& target) {
    To* out = target.as<To>();
    for (i64 index = 0; index < target.elements(); ++index) {
        From value;
        std::memcpy(&value, source + static_cast<std::size_t>(index) * sizeof(From), sizeof(From));
        narrow(widened(value), out[index]);
    }
}

template <class From>
void convert_from(const std::byte* source, const TensorView& target) {
    if (target.dtype == DType::f64) convert<From, double>(source, target);
    if (target.dtype == DType::f32) convert<From, float>(source, target);
    if (target.dtype == DType::bf16) convert<From, BFloat16>(source, target);
}

bool is_floating(DType dtype) {
    return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::bf16;
}

}  // namespace

bool convertible(DType from, DType to) {
    return from == to || (is_floating(from) && is_floating(to));
}

void convert_elements(const std::byte* source, DType from, const TensorView& target) {
    MOESAIC_ASSERT(host_may_access(target.device), "the target is not in host memory");
    MOESAIC_ASSERT(convertible(from, target.dtype), "{} cannot become {}", name_of(from),
                   name_of(target.dtype));
    if (from == target.dtype) {
        if (target.bytes() > 0) std::memcpy(target.data, source, static_cast<std::size_t>(target.bytes()));
        return;
    }
    if (from == DType::f64) convert_from<double>(source, target);
    if (from == DType::f32) convert_from<float>(source, target);
    if (from == DType::bf16) convert_from<BFloat16>(source, target);
}

}  // namespace moesaic
