#include "tests/conformance/op_cases.h"

#include <algorithm>
#include <numeric>

#include "runtime/base/philox.h"

namespace moesaic::conformance {

namespace {

Buffer make(std::string name, Shape shape, Storage storage,
            const std::function<double(const Philox&, u64)>& draw) {
    const Philox random(1, name + shape.text());
    Buffer buffer{std::move(name), shape, std::vector<double>(at(shape.elements())), storage};
    for (std::size_t i = 0; i < buffer.values.size(); ++i) buffer.values[i] = draw(random, i);
    return buffer;
}

}  // namespace

Buffer normal(std::string name, Shape shape, double scale) {
    return make(std::move(name), shape, Storage::stored,
                [scale](const Philox& random, u64 i) { return scale * random.normal(i); });
}

Buffer integers(std::string name, Shape shape, i64 first, i64 last) {
    return make(std::move(name), shape, Storage::int32, [first, last](const Philox& random, u64 i) {
        return static_cast<double>(first +
                                   static_cast<i64>(random.uniform(i) * static_cast<double>(last - first)));
    });
}

Buffer filled(std::string name, Shape shape, std::vector<double> values, Storage storage) {
    return {std::move(name), shape, std::move(values), storage};
}

Buffer output(std::string name, Shape shape, Storage storage) {
    return written(filled(std::move(name), shape, std::vector<double>(at(shape.elements()), 77.0), storage));
}

Buffer by_row(Buffer buffer) {
    buffer.by_row = true;
    return buffer;
}

Buffer real(Buffer buffer) {
    buffer.storage = Storage::real;
    return buffer;
}

Buffer written(Buffer buffer) {
    buffer.written = true;
    return buffer;
}

double dot(Stream& stream, ConstTensorView a, ConstTensorView b) {
    stream.synchronize();
    double sum = 0;
    for (i64 i = 0; i < a.elements(); ++i) sum += a.as<double>()[i] * b.as<double>()[i];
    return sum;
}

std::vector<i64> best_of(const std::vector<double>& scores, i64 count) {
    std::vector<i64> order(scores.size());
    std::iota(order.begin(), order.end(), i64{0});
    std::stable_sort(order.begin(), order.end(), [&](i64 a, i64 b) { return scores[at(a)] > scores[at(b)]; });
    order.resize(at(count));
    return order;
}

std::vector<double> row_of(const std::vector<double>& values, i64 row, i64 columns) {
    const auto first = values.begin() + row * columns;
    return {first, first + columns};
}

const std::vector<OpCase>& all_cases() {
    static const std::vector<OpCase> cases = [] {
        std::vector<OpCase> all;
        append_elementwise_cases(all);
        append_layer_cases(all);
        append_loss_cases(all);
        append_routing_cases(all);
        append_activation_cases(all);
        append_row_index_cases(all);
        append_router_cases(all);
        append_route_cases(all);
        append_router_noise_cases(all);
        append_balance_cases(all);
        append_product_cases(all);
        append_attention_cases(all);
        return all;
    }();
    return cases;
}

}  // namespace moesaic::conformance
