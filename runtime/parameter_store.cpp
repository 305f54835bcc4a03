#include "runtime/parameter_store.h"

#include <algorithm>
#include <limits>
#include <thread>
#include <utility>

#include "runtime/base/host_memory.h"
#include "runtime/base/philox.h"
#include "runtime/bfloat16.h"

namespace moesaic {

namespace {

constexpr Placement kPlacements[] = {Placement::replicated, Placement::expert};

template <Element Stored>
void fill_part(const Parameter& parameter, u64 seed, i64 first, TensorView to) {
    const Philox random(seed, parameter.name);
    Stored* const values = to.as<Stored>();
    for (i64 i = 0; i < to.elements(); ++i) {
        double value = parameter.init_constant;
        const i64 element = parameter.element_in_whole(first + i, parameter.slice.index);
        if (parameter.init_std > 0) value += parameter.init_std * random.normal(static_cast<u64>(element));
        if constexpr (std::is_same_v<Stored, BFloat16>) {
            values[i] = to_bfloat16(static_cast<float>(value));  // as from a master copy
        } else {
            values[i] = static_cast<Stored>(value);
        }
    }
}

void fill_part(const Parameter& parameter, u64 seed, i64 first, TensorView to) {
    if (to.dtype == DType::f64) return fill_part<double>(parameter, seed, first, to);
    if (to.dtype == DType::bf16) return fill_part<BFloat16>(parameter, seed, first, to);
    fill_part<float>(parameter, seed, first, to);
}

/// By all processors of this process: a number is a function of its place, and a billion take one of them
/// half a minute.
void fill_initial(const Parameter& parameter, u64 seed, i64 first, TensorView to) {
    constexpr i64 kLeast = i64{1} << 18;                                           // for a thread
    const i64 processors = std::max<i64>(1, std::thread::hardware_concurrency());  // which may not be known
    const i64 threads = std::clamp<i64>(to.elements() / kLeast, 1, processors);
    const auto begin = [&](i64 thread) { return to.elements() * thread / threads; };
    std::vector<std::jthread> others;
    for (i64 thread = 1; thread < threads; ++thread)
        others.emplace_back([&, thread] {
            fill_part(parameter, seed, first + begin(thread),
                      to.flat(begin(thread), begin(thread + 1) - begin(thread)));
        });
    fill_part(parameter, seed, first, to.flat(0, begin(1)));
}

}  // namespace

TensorView Weight::value() const {
    return store_->arena(placement_).value.view().flat(offset_, shape_.elements()).reshaped(shape_);
}

TensorView Weight::grad() const {
    return store_->arena(placement_).grad.view().flat(offset_, shape_.elements()).reshaped(shape_);
}

TensorView Weight::sum() const {
    return store_->sums(placement_).flat(offset_, shape_.elements()).reshaped(shape_);
}

bool Weight::start_sum() const {
    if (late_ < 0) return false;
    return !std::exchange(store_->late_[static_cast<std::size_t>(late_)].started, true);
}

void Weight::clear_sum(Stream& stream) const {
    if (start_sum()) store_->backend_.zero(stream, sum());
}

void Weight::clear_grad(Stream& stream) const {
    if (late_ < 0) return;
    if (store_->once_) return clear_sum(stream);  // which it is
    if (!std::exchange(store_->late_[static_cast<std::size_t>(late_)].grad_is_clear, true))
        store_->backend_.zero(stream, grad());
}

ConstTensorView Weight::packed_transposed() const {
    if (packed_ < 0 || !store_->packed_are_fresh_) return {};
    const Tensor& copy = store_->packed_[static_cast<std::size_t>(packed_)].transposed;
    return copy ? copy.view() : ConstTensorView();
}

ConstTensorView Weight::packed_plain() const {
    if (packed_ < 0 || !store_->packed_are_fresh_) return {};
    const Tensor& copy = store_->packed_[static_cast<std::size_t>(packed_)].plain;
    return copy ? copy.view() : ConstTensorView();
}

void Weight::fold_rows(Stream& stream, i64 first, i64 count) const {
    const i64 row = shape_.cols();
    store_->fold(stream, placement_, {offset_ + first * row, offset_ + (first + count) * row});
}

bool Weight::sums_exactly() const {
    return store_->rounding_.step > 0;
}

void ParameterStore::sum_exactly(i64 parts) {
    MOESAIC_ASSERT(!once_, "exact sums of {} parts where a gradient has one", parts);
    rounding_.step = kLargestExact * 0x1p-51;
    rounding_.limit = kLargestExact / static_cast<double>(parts);
    if (copies_) copies_->rounding_ = rounding_;
}

void ParameterStore::sum_once() {
    MOESAIC_ASSERT(backend_.adds_to_gradients() && rounding_.step == 0, "{} sums gradients in f64",
                   backend_.name());
    once_ = true;
}

Weight ParameterStore::declare(std::vector<Parameter> parameters, Shape shape) {
    MOESAIC_ASSERT(!parameters.empty(), "a weight of shape {} has no parameter", shape.text());
    Arena& target = arena(parameters.front().placement);
    Weight weight;
    weight.store_ = this;
    weight.placement_ = parameters.front().placement;
    weight.offset_ = target.elements;
    weight.shape_ = shape;
    for (Parameter& parameter : parameters) {
        MOESAIC_ASSERT(parameter.placement == weight.placement_, "{} has another placement", parameter.name);
        offsets_.push_back(target.elements);
        target.elements += parameter.shape.elements();
        if (!parameter.folds_itself) target.to_fold += parameter.shape.elements();
        parameters_.push_back(std::move(parameter));
    }
    MOESAIC_ASSERT(target.elements - weight.offset_ == shape.elements(),
                   "parameters of {} elements read as {}", target.elements - weight.offset_, shape.text());
    return weight;
}

Weight ParameterStore::declare(Parameter parameter) {
    const Shape shape = parameter.shape;
    std::vector<Parameter> one;
    one.push_back(std::move(parameter));
    return declare(std::move(one), shape);
}

ParameterStore& ParameterStore::copies() {
    if (!copies_) {
        copies_ = std::make_unique<ParameterStore>(backend_, dtype_);
        for (std::size_t segment = 0; segment < arenas_[0].segments.size(); ++segment) copies_->end_segment();
    }
    return *copies_;
}

Buffer& ParameterStore::declare_buffer(std::string name, Shape shape) {
    return buffers_.emplace_back(Buffer{std::move(name), shape, {}});
}

void ParameterStore::used_in_products(Weight& weight, i64 halves) {
    weight.packed_ = static_cast<std::ptrdiff_t>(packed_.size());
    packed_.push_back({weight, halves, {}, {}});
}

void ParameterStore::starts_sum(Weight& weight) {
    weight.late_ = static_cast<std::ptrdiff_t>(late_.size());
    late_.push_back({weight, static_cast<int>(arena(weight.placement_).segments.size())});
}

void ParameterStore::end_segment() {
    for (Arena& one : arenas_) {
        const i64 begin = one.segments.empty() ? 0 : one.segments.back().end;
        for (const Late& late : late_)
            MOESAIC_ASSERT(
                one.to_fold == 0 || late.weight.offset_ < begin || &arena(late.weight.placement_) != &one,
                "{} elements of a segment are folded with those of a weight that starts its sum",
                one.to_fold);
        one.segments.push_back({begin, one.elements});
        one.folds_itself.push_back(one.to_fold == 0);
        one.to_fold = 0;
    }
    if (copies_) copies_->end_segment();
}

void ParameterStore::allocate(Stream& stream, u64 seed) {
    MOESAIC_ASSERT(!once_ || !copies_, "copies add to gradients of {} bytes", size_of(real()));
    seed_ = seed;
    for (Arena& one : arenas_) {
        MOESAIC_ASSERT(!one.segments.empty() && one.segments.back().end == one.elements,
                       "the last segment was not ended ({} elements)", one.elements);
        const auto arena_of = [&](DType dtype, MemoryUse use) {
            const MemoryUseScope scope(backend_.pool(), use);
            return backend_.allocate({one.elements}, dtype);
        };
        one.value = arena_of(dtype_, MemoryUse::weights);
        one.grad = arena_of(real(), MemoryUse::gradients);
        if (!once_) one.sum = arena_of(DType::f64, MemoryUse::gradient_sums);
    }
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
        Parameter& parameter = parameters_[i];
        Arena& owner = arena(parameter.placement);
        parameter.value =
            owner.value.view().flat(offsets_[i], parameter.shape.elements()).reshaped(parameter.shape);
        parameter.grad =
            owner.grad.view().flat(offsets_[i], parameter.shape.elements()).reshaped(parameter.shape);
        if (backend_.computes()) fill_initial(parameter, seed, 0, parameter.value);
    }
    for (Buffer& buffer : buffers_) {
        const MemoryUseScope scope(backend_.pool(), MemoryUse::weights);
        buffer.value = backend_.allocate(buffer.shape, real());
        backend_.zero(stream, buffer.value);
    }
    const MemoryUseScope use(backend_.pool(), MemoryUse::packed);
    for (Packed& one : packed_) {
        if (!keeps_packed_) break;
        const PackedElements elements = backend_.packed_elements(one.weight.shape_, dtype_, one.halves);
        one.transposed = backend_.allocate({elements.transposed}, dtype_);
        one.plain = backend_.allocate({elements.plain}, dtype_);
    }
    if (copies_) {
        copies_->keeps_packed_ = keeps_packed_;
        copies_->allocate(stream, seed);
    }
    zero_gradients(stream);
    pack(stream);
    stream.synchronize();
}

void ParameterStore::initial_values(const Parameter& parameter, i64 first, TensorView to) const {
    fill_initial(parameter, seed_, first, to);
}

void ParameterStore::pack(Stream& stream) {
    i64 bytes = 0;
    for (const Packed& one : packed_) bytes += one.transposed.view().bytes() + one.plain.view().bytes();
    for (Packed& one : packed_) {
        if (!keeps_packed_) break;
        backend_.pack(stream, {.weight = one.weight.value(),
                               .transposed = one.transposed.view(),
                               .plain = one.plain.view(),
                               .halves = one.halves,
                               .past_caches = bytes >= kBeyondCaches});
    }
    packed_are_fresh_ = true;
    if (copies_) copies_->pack(stream);
}

void ParameterStore::zero_gradients(Stream& stream) {
    for (Arena& one : arenas_) {
        const auto zero = [&](i64 begin, i64 end) {
            backend_.zero(stream, one.grad.view().flat(begin, end - begin));
            if (!once_) backend_.zero(stream, one.sum.view().flat(begin, end - begin));
        };
        i64 done = 0;
        for (const Late& late : late_) {  // in the order of their declaration
            if (&arena(late.weight.placement_) != &one) continue;
            zero(done, late.weight.offset_);
            done = late.weight.offset_ + late.weight.shape_.elements();
        }
        zero(done, one.elements);
    }
    for (Late& late : late_) late.started = late.grad_is_clear = false;
    folded_.assign(arenas_[0].segments.size(), false);
    if (copies_) copies_->zero_gradients(stream);
}

void ParameterStore::clear_late_sums(Stream& stream, int first_segment, int last_segment) {
    for (const Late& late : late_) {
        if (late.segment >= first_segment && late.segment <= last_segment) late.weight.clear_sum(stream);
    }
}

void ParameterStore::fold(Stream& stream, Placement placement, ArenaRange range) {
    backend_.fold(stream, gradients(placement).flat(range.begin, range.size()),
                  sums(placement).flat(range.begin, range.size()), rounding_);
}

void ParameterStore::fold_segment(Stream& stream, int segment) {
    const auto index = static_cast<std::size_t>(segment);
    MOESAIC_ASSERT(!once_ || !folded_[index], "a second micro-batch of segment {} is summed once", segment);
    folded_[index] = true;
    clear_late_sums(stream, segment, segment);
    if (copies_) copies_->clear_late_sums(stream, segment, segment);
    for (const Placement placement : kPlacements) {
        const Arena& one = arena(placement);
        if (!one.folds_itself[index]) fold(stream, placement, one.segments[index]);
    }
}

void ParameterStore::round_sums(Stream& stream, Placement placement, ArenaRange range) {
    if (once_) return;
    backend_.convert(stream, sums(placement).flat(range.begin, range.size()),
                     gradients(placement).flat(range.begin, range.size()));
}

void ParameterStore::complete_gradients(Stream& stream) {
    clear_late_sums(stream, 0, std::numeric_limits<int>::max());
    for (const Late& late : late_) late.weight.clear_grad(stream);
    for (const Placement placement : kPlacements) {
        const ArenaRange all{0, elements(placement)};
        if (all.size() == 0) continue;
        fold(stream, placement, all);
        round_sums(stream, placement, all);
    }
}

}  // namespace moesaic
