// Typed blocks of memory with a shape: views (non-owning, cheap) and tensors (owning, returned to a pool).
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>

#include "runtime/base/error.h"
#include "runtime/base/types.h"

namespace moesaic {

enum class DType : std::uint8_t { f64, f32, bf16, int32, int64 };
enum class Device : std::uint8_t { cpu, cuda };

/// Storage of a bfloat16 number (the upper half of an f32); arithmetic happens in f32.
struct BFloat16 {
    std::uint16_t bits = 0;
    bool operator==(const BFloat16&) const = default;
};

template <class T>
concept Element = std::same_as<T, double> || std::same_as<T, float> || std::same_as<T, BFloat16> ||
    std::same_as<T, i32> || std::same_as<T, i64>;

template <Element T>
[[nodiscard]] constexpr DType dtype_of() {
    if constexpr (std::same_as<T, double>) return DType::f64;
    if constexpr (std::same_as<T, float>) return DType::f32;
    if constexpr (std::same_as<T, BFloat16>) return DType::bf16;
    if constexpr (std::same_as<T, i32>) return DType::int32;
    if constexpr (std::same_as<T, i64>) return DType::int64;
}
[[nodiscard]] i64 size_of(DType dtype);
/// The type that arithmetic on values stored as `dtype` is done and accumulated in: f32 for bf16, else
/// itself.
[[nodiscard]] constexpr DType accumulation_type(DType dtype) {
    return dtype == DType::bf16 ? DType::f32 : dtype;
}
[[nodiscard]] std::string_view name_of(DType dtype);

/// Up to three dimensions. The usual reading is rows() x cols(): the first dimension and all the others.
class Shape {
  public:
    Shape() = default;
    Shape(std::initializer_list<i64> dimensions);

    [[nodiscard]] int rank() const { return rank_; }
    [[nodiscard]] i64 operator[](int axis) const { return dimensions_[static_cast<std::size_t>(axis)]; }
    [[nodiscard]] i64 elements() const { return rows() * cols(); }
    [[nodiscard]] i64 rows() const { return rank_ == 0 ? 0 : dimensions_[0]; }
    [[nodiscard]] i64 cols() const { return dimensions_[1] * dimensions_[2]; }
    [[nodiscard]] Shape with_rows(i64 rows) const;
    [[nodiscard]] std::string text() const;  ///< e.g. "[128,64]"
    bool operator==(const Shape&) const = default;

  private:
    std::array<i64, 3> dimensions_{1, 1, 1};  // unused dimensions are 1
    int rank_ = 0;
};

namespace detail {
/// What both kinds of view share; `Pointer` is `void*` or `const void*`. Memory is dense and row-major.
template <class Pointer>
struct ViewBase {
    Pointer data = nullptr;
    DType dtype = DType::f32;
    Device device = Device::cpu;
    Shape shape;

    [[nodiscard]] i64 rows() const { return shape.rows(); }
    [[nodiscard]] i64 cols() const { return shape.cols(); }
    [[nodiscard]] i64 elements() const { return shape.elements(); }
    [[nodiscard]] i64 bytes() const { return elements() * size_of(dtype); }
};
void check_dtype(DType have, DType want);
void check_range(const Shape& shape, i64 first, i64 count);
}  // namespace detail

struct ConstTensorView : detail::ViewBase<const void*> {
    template <Element T>
    [[nodiscard]] const T* as() const {
        detail::check_dtype(dtype, dtype_of<T>());
        return static_cast<const T*>(data);
    }
    [[nodiscard]] ConstTensorView slice_rows(i64 first, i64 count) const;
    /// `count` elements from `offset` on, as one dimension.
    [[nodiscard]] ConstTensorView flat(i64 offset, i64 count) const;
    [[nodiscard]] ConstTensorView reshaped(Shape other) const;
};

struct TensorView : detail::ViewBase<void*> {
    template <Element T>
    [[nodiscard]] T* as() const {
        detail::check_dtype(dtype, dtype_of<T>());
        return static_cast<T*>(data);
    }
    [[nodiscard]] TensorView slice_rows(i64 first, i64 count) const;
    [[nodiscard]] TensorView flat(i64 offset, i64 count) const;
    [[nodiscard]] TensorView reshaped(Shape other) const;
    operator ConstTensorView() const {
        return {{data, dtype, device, shape}};
    }  // NOLINT(google-explicit-constructor)
};

/// View of host memory that somebody else owns.
template <Element T>
[[nodiscard]] TensorView view_of(T* data, Shape shape) {
    return {{data, dtype_of<T>(), Device::cpu, shape}};
}
template <Element T>
[[nodiscard]] ConstTensorView view_of(const T* data, Shape shape) {
    return {{data, dtype_of<T>(), Device::cpu, shape}};
}

class MemoryPool;

/// Owning and move-only; its block goes back to the pool it came from. Contents are undefined until written.
class Tensor {
  public:
    Tensor() = default;
    Tensor(MemoryPool& pool, Shape shape, DType dtype);
    Tensor(Tensor&& other) noexcept;
    Tensor& operator=(Tensor&& other) noexcept;
    Tensor(const Tensor&) = delete;
    Tensor& operator=(const Tensor&) = delete;
    ~Tensor() { reset(); }

    void reset() noexcept;
    [[nodiscard]] explicit operator bool() const { return pool_ != nullptr; }
    [[nodiscard]] TensorView view() { return view_; }
    [[nodiscard]] ConstTensorView view() const { return view_; }
    operator TensorView() { return view_; }             // NOLINT(google-explicit-constructor)
    operator ConstTensorView() const { return view_; }  // NOLINT(google-explicit-constructor)
    [[nodiscard]] TensorView slice_rows(i64 first, i64 count) { return view_.slice_rows(first, count); }
    [[nodiscard]] ConstTensorView slice_rows(i64 first, i64 count) const {
        return view_.slice_rows(first, count);
    }
    template <Element T>
    [[nodiscard]] T* as() {
        return view_.as<T>();
    }
    template <Element T>
    [[nodiscard]] const T* as() const {
        return view_.as<T>();
    }
    [[nodiscard]] const Shape& shape() const { return view_.shape; }
    [[nodiscard]] DType dtype() const { return view_.dtype; }
    [[nodiscard]] i64 rows() const { return view_.rows(); }
    [[nodiscard]] i64 cols() const { return view_.cols(); }
    [[nodiscard]] i64 elements() const { return view_.elements(); }

  private:
    TensorView view_;
    MemoryPool* pool_ = nullptr;
    i64 capacity_bytes_ = 0;
    std::uint8_t use_ = 0;  // MemoryUse, which the pool defines
};

}  // namespace moesaic
