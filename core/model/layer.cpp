#include "core/model/layer.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

constexpr std::int64_t kAlignmentBytes = 64;
constexpr std::int64_t kCopyGrainBytes = std::int64_t{1} << 16;

std::int64_t aligned_elements(std::int64_t elements, DType dtype) {
  const std::int64_t step = kAlignmentBytes / size_bytes(dtype);
  return (elements + step - 1) / step * step;
}

TensorView part(Tensor& flat, std::int64_t offset, std::int64_t rows, std::int64_t columns) {
  char* data = flat.as<char>() + offset * size_bytes(flat.dtype());
  return view_of(data, flat.dtype(), {rows, columns}, flat.view().device);
}

template <class View>
View heads_view(View matrix, std::int64_t begin, std::int64_t heads, std::int64_t dim) {
  View view = matrix.slice(1, begin, heads * dim);
  view.strides = {matrix.strides[0], dim, 1};
  view.shape = {matrix.shape[0], heads, dim};
  return view;
}

}  // namespace

ParameterStore::ParameterStore(std::vector<Parameter*> all, DType dtype) : parameters(std::move(all)) {
  std::stable_partition(parameters.begin(), parameters.end(),
                        [](const Parameter* p) { return p->role != ParameterRole::statistic; });
  std::int64_t total = 0;
  std::int64_t trained = 0;
  for (const Parameter* parameter : parameters) {
    total += aligned_elements(parameter->elements(), dtype);
    if (parameter->role != ParameterRole::statistic) trained = total;
  }
  values = Tensor(dtype, {total});
  gradients = Tensor(dtype, {trained});
  std::int64_t offset = 0;
  for (Parameter* parameter : parameters) {
    parameter->value = part(values, offset, parameter->rows, parameter->columns);
    if (parameter->role != ParameterRole::statistic) {
      parameter->grad = part(gradients, offset, parameter->rows, parameter->columns);
    }
    offset += aligned_elements(parameter->elements(), dtype);
  }
}

std::int64_t arena_bytes(DType dtype, std::int64_t elements) { return Arena::footprint(elements * size_bytes(dtype)); }

void copy_tensor(TensorView to, ConstTensorView from, Stream& stream) {
  check(to.shape == from.shape && to.dtype == from.dtype && to.contiguous() && from.contiguous(), "copy: {} from {}",
        to.to_string(), from.to_string());
  check(to.device.kind == DeviceKind::cpu, "copy: {} is not on the CPU", to.to_string());
  stream.workers().split(to.bytes(), kCopyGrainBytes, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(to.as<char>() + begin, from.as<char>() + begin, static_cast<std::size_t>(end - begin));
  });
}

void convert_tensor(TensorView to, ConstTensorView from, Stream& stream) {
  check(to.shape == from.shape && to.contiguous() && from.contiguous(), "convert: {} from {}", to.to_string(),
        from.to_string());
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
