#include "kernels/base/tensor.h"

#include "kernels/base/check.h"

namespace shoestring {

Shape::Shape(std::initializer_list<std::int64_t> extents) {
  check(extents.size() <= kMaxRank, "a shape of rank {} exceeds {}", extents.size(), kMaxRank);
  for (const std::int64_t extent : extents) extents_[static_cast<std::size_t>(rank_++)] = extent;
}

std::int64_t Shape::elements() const {
  std::int64_t product = 1;
  for (int dim = 0; dim < rank_; ++dim) product *= (*this)[dim];
  return product;
}

std::string Shape::to_string() const {
  std::string text = "[";
  for (int dim = 0; dim < rank_; ++dim) text += fmt::format("{}{}", dim == 0 ? "" : ", ", (*this)[dim]);
  return text + "]";
}

Strides contiguous_strides(const Shape& shape) {
  Strides strides = shape;
  std::int64_t step = 1;
  for (int dim = shape.rank() - 1; dim >= 0; --dim) {
    strides[dim] = step;
    step *= shape[dim];
  }
  return strides;
}

template <class Data>
BasicTensorView<Data> BasicTensorView<Data>::slice(int dim, std::int64_t begin, std::int64_t count) const {
  check(dim < shape.rank() && begin >= 0 && count >= 0 && begin + count <= shape[dim],
        "slice [{}, {} + {}) of dim {} leaves {}", begin, begin, count, dim, shape);
  using Byte = std::conditional_t<std::is_const_v<Data>, const char, char>;
  BasicTensorView part = *this;
  if (data != nullptr) part.data = static_cast<Byte*>(data) + begin * strides[dim] * size_bytes(dtype);
  part.shape[dim] = count;
  return part;
}

template <class Data>
BasicTensorView<Data> BasicTensorView<Data>::transposed() const {
  check(shape.rank() == 2, "transposed() takes a matrix, not {}", to_string());
  BasicTensorView swapped = *this;
  swapped.shape = {shape[1], shape[0]};
  swapped.strides = {strides[1], strides[0]};
  return swapped;
}

template <class Data>
BasicTensorView<Data> BasicTensorView<Data>::reshaped(const Shape& to) const {
  check(contiguous() && to.elements() == elements(), "cannot reshape {} to {}", to_string(), to);
  BasicTensorView other = *this;
  other.shape = to;
  other.strides = contiguous_strides(to);
  return other;
}

template <class Data>
std::string BasicTensorView<Data>::to_string() const {
  return fmt::format("{} {}", name(dtype), shape.to_string());
}

template struct BasicTensorView<void>;
template struct BasicTensorView<const void>;

TensorView view_of(void* data, DType dtype, const Shape& shape, Device device) {
  return {data, shape, contiguous_strides(shape), dtype, device};
}

ConstTensorView view_of(const void* data, DType dtype, const Shape& shape, Device device) {
  return {data, shape, contiguous_strides(shape), dtype, device};
}

Tensor::Tensor(DType dtype, const Shape& shape, Device device)
    : storage_(shape.elements() * size_bytes(dtype), device), view_(view_of(storage_.data(), dtype, shape, device)) {}

Shape scales_shape(std::int64_t rows, std::int64_t columns, Granularity granularity) {
  const auto tiles = [](std::int64_t extent, std::int64_t tile) {
    return tile == 0 ? std::int64_t{1} : (extent + tile - 1) / tile;
  };
  return {tiles(rows, granularity.rows), tiles(columns, granularity.columns)};
}

ConstScaledView unscaled(ConstTensorView values) { return {values, {}, {}}; }

}  // namespace shoestring
