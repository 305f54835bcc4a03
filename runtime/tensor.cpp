#include "runtime/tensor.h"

#include <utility>

#include "runtime/memory_pool.h"

namespace moesaic {

i64 size_of(DType dtype) {
    switch (dtype) {
        case DType::f64:
        case DType::int64:
            return 8;
        case DType::f32:
        case DType::int32:
            return 4;
        case DType::bf16:
            return 2;
    }
    return 0;
}

std::string_view name_of(DType dtype) {
    static constexpr std::array<std::string_view, 5> kNames{"f64", "f32", "bf16", "i32", "i64"};
    return kNames[static_cast<std::size_t>(dtype)];
}

Shape::Shape(std::initializer_list<i64> dimensions) : rank_(static_cast<int>(dimensions.size())) {
    MOESAIC_ASSERT(dimensions.size() <= 3, "a shape has at most three dimensions, not {}", dimensions.size());
    std::size_t axis = 0;
    for (const i64 extent : dimensions) {
        MOESAIC_ASSERT(extent >= 0, "dimension {} is {}", axis, extent);
        dimensions_[axis++] = extent;
    }
}

Shape Shape::with_rows(i64 rows) const {
    Shape other = *this;
    other.dimensions_[0] = rows;
    return other;
}

std::string Shape::text() const {
    std::string text = "[";
    for (int axis = 0; axis < rank_; ++axis) text += fmt::format("{}{}", axis ? "," : "", (*this)[axis]);
    return text + "]";
}

void detail::check_dtype(DType have, DType want) {
    MOESAIC_ASSERT(have == want, "tensor holds {}, not {}", name_of(have), name_of(want));
}

void detail::check_range(const Shape& shape, i64 first, i64 count) {
    MOESAIC_ASSERT(first >= 0 && count >= 0 && first + count <= shape.rows(), "rows {}+{} of {}", first,
                   count, shape.text());
}

namespace {

template <class View>
View slice_rows_of(const View& view, i64 first, i64 count) {
    detail::check_range(view.shape, first, count);
    View part = view;
    using Byte = std::conditional_t<std::is_same_v<decltype(view.data), void*>, std::byte, const std::byte>;
    part.data = static_cast<Byte*>(view.data) + first * view.cols() * size_of(view.dtype);
    part.shape = view.shape.with_rows(count);
    return part;
}

template <class View>
View reshaped_of(const View& view, Shape other) {
    MOESAIC_ASSERT(view.elements() == other.elements(), "{} cannot be read as {}", view.shape.text(),
                   other.text());
    View same = view;
    same.shape = other;
    return same;
}

}  // namespace

ConstTensorView ConstTensorView::slice_rows(i64 first, i64 count) const {
    return slice_rows_of(*this, first, count);
}
ConstTensorView ConstTensorView::reshaped(Shape other) const {
    return reshaped_of(*this, other);
}
ConstTensorView ConstTensorView::flat(i64 offset, i64 count) const {
    return reshaped({elements()}).slice_rows(offset, count);
}
TensorView TensorView::slice_rows(i64 first, i64 count) const {
    return slice_rows_of(*this, first, count);
}
TensorView TensorView::reshaped(Shape other) const {
    return reshaped_of(*this, other);
}
TensorView TensorView::flat(i64 offset, i64 count) const {
    return reshaped({elements()}).slice_rows(offset, count);
}

Tensor::Tensor(MemoryPool& pool, Shape shape, DType dtype) : pool_(&pool) {
    const i64 bytes = shape.elements() * size_of(dtype);
    const MemoryPool::Block block = pool.take(bytes);
    capacity_bytes_ = block.bytes;
    use_ = static_cast<std::uint8_t>(block.use);
    view_ = {{block.data, dtype, pool.device(), shape}};
}

Tensor::Tensor(Tensor&& other) noexcept
    : view_(std::exchange(other.view_, {})),
      pool_(std::exchange(other.pool_, nullptr)),
      capacity_bytes_(std::exchange(other.capacity_bytes_, 0)),
      use_(other.use_) {}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
    if (this != &other) {
        reset();
        view_ = std::exchange(other.view_, {});
        pool_ = std::exchange(other.pool_, nullptr);
        capacity_bytes_ = std::exchange(other.capacity_bytes_, 0);
        use_ = other.use_;
    }
    return *this;
}

void Tensor::reset() noexcept {
    if (pool_) pool_->give_back({view_.data, capacity_bytes_, static_cast<MemoryUse>(use_)});
    pool_ = nullptr;
    view_ = {};
    capacity_bytes_ = 0;
}

}  // namespace moesaic
