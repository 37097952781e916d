#include "core/model/layer.h"

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

template <class View>
View heads_view(View matrix, std::int64_t begin, std::int64_t heads, std::int64_t dim) {
  View view = matrix.slice(1, begin, heads * dim);
  view.strides = {matrix.strides[0], dim, 1};
  view.shape = {matrix.shape[0], heads, dim};
  return view;
}

}  // namespace

void copy_tensor(TensorView to, ConstTensorView from, Stream& stream) {
  check(to.contiguous() && from.contiguous(), "copy: {} from {}", to, from);
  copy(to, from, stream);
}

void convert_tensor(TensorView to, ConstTensorView from, Stream& stream) {
  check(to.shape == from.shape && to.contiguous() && from.contiguous(), "convert: {} from {}", to, from);
  if (to.dtype == from.dtype) return copy_tensor(to, from, stream);
  convert(to, from, stream);
}

TensorView heads_of(TensorView matrix, std::int64_t begin, std::int64_t heads, std::int64_t dim) {
  return heads_view(matrix, begin, heads, dim);
}

ConstTensorView heads_of(ConstTensorView matrix, std::int64_t begin, std::int64_t heads, std::int64_t dim) {
  return heads_view(matrix, begin, heads, dim);
}

}  // namespace shoestring
