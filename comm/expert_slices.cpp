#include "comm/expert_slices.h"

#include <cstring>

namespace moesaic {

namespace {

/// Calls visit(first element in the slice, first element in the whole, count) for every run of elements that
/// lie side by side in both.
template <class Visit>
void for_each_run(const Parameter& parameter, int index, Visit visit) {
    const bool rows_apart = parameter.is_cut() && parameter.slice.axis == 1;
    const i64 count = rows_apart ? parameter.shape.cols() : parameter.shape.elements();
    for (i64 first = 0; first < parameter.shape.elements(); first += count)
        visit(first, parameter.element_in_whole(first, index), count);
}

void check_sizes(const Parameter& parameter, ConstTensorView slice, ConstTensorView whole) {
    MOESAIC_ASSERT(slice.dtype == whole.dtype && slice.elements() == parameter.shape.elements() &&
                       whole.elements() == parameter.whole_shape().elements(),
                   "{}: a slice {} of {}", parameter.name, slice.shape.text(), whole.shape.text());
}

}  // namespace

void put_slice(const Parameter& parameter, int index, ConstTensorView slice, TensorView whole) {
    check_sizes(parameter, slice, whole);
    const auto bytes = size_of(slice.dtype);
    for_each_run(parameter, index, [&](i64 from, i64 to, i64 count) {
        std::memcpy(static_cast<std::byte*>(whole.data) + to * bytes,
                    static_cast<const std::byte*>(slice.data) + from * bytes,
                    static_cast<std::size_t>(count * bytes));
    });
}

void take_slice(const Parameter& parameter, ConstTensorView whole, TensorView slice) {
    check_sizes(parameter, slice, whole);
    const auto bytes = size_of(slice.dtype);
    for_each_run(parameter, parameter.slice.index, [&](i64 to, i64 from, i64 count) {
        std::memcpy(static_cast<std::byte*>(slice.data) + to * bytes,
                    static_cast<const std::byte*>(whole.data) + from * bytes,
                    static_cast<std::size_t>(count * bytes));
    });
}

std::vector<std::byte> whole_tensor(StepContext& context, const Parameter& parameter, ConstTensorView mine,
                                    std::string_view operation) {
    const auto bytes = static_cast<std::size_t>(mine.bytes());
    std::vector<std::byte> whole(bytes *
                                 static_cast<std::size_t>(parameter.is_cut() ? parameter.slice.count : 1));
    if (!parameter.is_cut()) {
        std::memcpy(whole.data(), mine.data, bytes);
        return whole;
    }
    std::vector<std::byte> slices(whole.size());
    const i64 elements = mine.elements();
    const auto host = [&](std::vector<std::byte>& memory, i64 first, Shape shape) {
        return TensorView{{memory.data() + first * size_of(mine.dtype), mine.dtype, Device::cpu, shape}};
    };
    context.exchange.wait(context.compute.record());
    context.mesh.slices().all_gather(context.exchange, mine.flat(0, elements),
                                     host(slices, 0, {elements * parameter.slice.count}), {operation});
    context.exchange.synchronize();
    for (int index = 0; index < parameter.slice.count; ++index)
        put_slice(parameter, index, host(slices, index * elements, {elements}),
                  host(whole, 0, {elements * parameter.slice.count}));
    return whole;
}

}  // namespace moesaic
