// Views borrow, owners move.
//
// A view is a small value: pointer, shape, strides (in elements), format, device. Shapes are written in words where a
// tensor is declared: `[tokens, hidden]`. A transpose, a slice and a head of a fused projection are views; no op copies
// to change a layout. Low precision never travels without its scales: see ScaledView.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/base/memory.h"

namespace shoestring {

/// Up to four extents. A rank-0 shape has one element; an extent may be 0.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);

  int rank() const { return rank_; }
  std::int64_t operator[](int dim) const { return extents_[static_cast<std::size_t>(dim)]; }
  std::int64_t& operator[](int dim) { return extents_[static_cast<std::size_t>(dim)]; }
  std::int64_t elements() const;
  std::string to_string() const;
  bool operator==(const Shape&) const = default;

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

using Strides = Shape;  // in elements, one per dim

/// Row-major strides of `shape`.
Strides contiguous_strides(const Shape& shape);

/// Borrowed elements, writable through `Data = void`, read-only through `Data = const void`.
template <class Data>
struct BasicTensorView {
  Data* data = nullptr;
  Shape shape;
  Strides strides;
  DType dtype = DType::f32;
  Device device;

  bool empty() const { return data == nullptr; }
  std::int64_t elements() const { return shape.elements(); }
  bool contiguous() const { return strides == contiguous_strides(shape) || elements() == 0; }
  std::int64_t bytes() const { return elements() * size_bytes(dtype); }

  /// Pointer to typed elements; T is the C++ type of `dtype` (unchecked: the op's own checks come first).
  template <class T>
  auto* as() const {
    if constexpr (std::is_const_v<Data>) {
      return static_cast<const T*>(data);
    } else {
      return static_cast<T*>(data);
    }
  }

  operator BasicTensorView<const void>() const requires(!std::is_const_v<Data>) {
    return {data, shape, strides, dtype, device};
  }

  /// Elements [begin, begin + count) of `dim`.
  BasicTensorView slice(int dim, std::int64_t begin, std::int64_t count) const;
  /// The two dims of a matrix swapped.
  BasicTensorView transposed() const;
  /// The same elements under another shape; requires contiguity.
  BasicTensorView reshaped(const Shape& to) const;
  std::string to_string() const;  // "bf16 [64, 512]"
};

using TensorView = BasicTensorView<void>;
using ConstTensorView = BasicTensorView<const void>;

/// A contiguous view of memory that somebody else owns.
TensorView view_of(void* data, DType dtype, const Shape& shape, Device device = {});
ConstTensorView view_of(const void* data, DType dtype, const Shape& shape, Device device = {});

/// Owns contiguous elements; move-only. Fresh memory is zero.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, const Shape& shape, Device device = {});

  TensorView view() { return view_; }
  ConstTensorView view() const { return view_; }
  operator TensorView() { return view_; }
  operator ConstTensorView() const { return view_; }
  const Shape& shape() const { return view_.shape; }
  DType dtype() const { return view_.dtype; }
  std::int64_t bytes() const { return view_.bytes(); }
  bool empty() const { return view_.empty(); }
  template <class T>
  T* as() {
    return static_cast<T*>(view_.data);
  }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(view_.data);
  }

 private:
  Storage storage_;
  TensorView view_;
};

/// How many elements of a matrix [rows, columns] share one scale; 0 means the whole extent.
struct Granularity {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  bool operator==(const Granularity&) const = default;
};
inline constexpr Granularity kPerTensor{0, 0};
inline constexpr Granularity kRowTile128{1, 128};     // activations along K
inline constexpr Granularity kColumnTile128{128, 1};  // activations along tokens, for weight gradients
inline constexpr Granularity kBlock128{128, 128};     // weights
inline constexpr Granularity kRowTile32{1, 32};       // MX

/// A matrix whose value is `values * scale of its tile`. `scales` is f32 or e8m0,
/// [ceil(rows / granularity.rows), ceil(columns / granularity.columns)]. For plain formats `scales` is empty.
template <class View>
struct BasicScaledView {
  View values;
  View scales;
  Granularity granularity;

  bool scaled() const { return !scales.empty(); }
  /// Rows and columns swapped, in values, scales and granularity alike.
  BasicScaledView transposed() const {
    BasicScaledView t = *this;
    t.values = values.transposed();
    if (scaled()) t.scales = scales.transposed();
    t.granularity = {granularity.columns, granularity.rows};
    return t;
  }
  operator BasicScaledView<ConstTensorView>() const requires(!std::is_same_v<View, ConstTensorView>) {
    return {values, scales, granularity};
  }
};
using ScaledView = BasicScaledView<TensorView>;
using ConstScaledView = BasicScaledView<ConstTensorView>;

/// The shape of the scales of a [rows, columns] matrix.
Shape scales_shape(std::int64_t rows, std::int64_t columns, Granularity granularity);

/// A plain matrix where a scaled one may stand.
ConstScaledView unscaled(ConstTensorView values);

}  // namespace shoestring
