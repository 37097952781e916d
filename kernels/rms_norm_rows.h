// Where the rows of a [tokens, hidden] or [tokens, heads, dim] tensor begin. Included by the rows of RMSNorm only.
#pragma once

#include <cstdint>

#include "kernels/base/tensor.h"

namespace shoestring::rms_norm {

/// Rows are the dims before the last `tail` ones (1 for matrices, 0 for statistics), of which there are one or two.
class RowOffsets {
 public:
  RowOffsets(const Shape& shape, const Strides& strides, int tail) {
    const int dims = shape.rank() - tail;
    outer_stride_ = strides[0];
    if (dims == 2) {
      inner_ = shape[1];
      inner_stride_ = strides[1];
    }
  }
  /// In elements.
  std::int64_t operator()(std::int64_t row) const {
    if (inner_ == 1) return row * outer_stride_;
    return row / inner_ * outer_stride_ + row % inner_ * inner_stride_;
  }

 private:
  std::int64_t inner_ = 1;
  std::int64_t outer_stride_ = 0;
  std::int64_t inner_stride_ = 0;
};

/// Rows of a matrix-like view: pointer to the first element of row `row`. Empty views give nullptr.
template <class T, class View>
class Rows {
 public:
  explicit Rows(const View& view) : data_(view.template as<T>()), offsets_(view.shape, view.strides, 1) {}
  auto* operator[](std::int64_t row) const { return data_ == nullptr ? nullptr : data_ + offsets_(row); }

 private:
  decltype(std::declval<View>().template as<T>()) data_;
  RowOffsets offsets_;
};

/// One number per row.
template <class T, class View>
class RowStatistics {
 public:
  explicit RowStatistics(const View& view) : data_(view.template as<T>()), offsets_(view.shape, view.strides, 0) {}
  explicit operator bool() const { return data_ != nullptr; }
  auto& operator[](std::int64_t row) const { return data_[offsets_(row)]; }

 private:
  decltype(std::declval<View>().template as<T>()) data_;
  RowOffsets offsets_;
};

inline std::int64_t row_count(ConstTensorView view) {
  return view.shape.rank() == 3 ? view.shape[0] * view.shape[1] : view.shape[0];
}
inline std::int64_t row_width(ConstTensorView view) { return view.shape[view.shape.rank() - 1]; }

/// Rows per piece of work: some tens of microseconds of it.
inline std::int64_t row_grain(std::int64_t width) { return width >= 16384 ? 1 : 16384 / (width < 1 ? 1 : width) + 1; }

}  // namespace shoestring::rms_norm
