#include "core/model/parameter.h"

#include <algorithm>
#include <utility>

namespace shoestring {
namespace {

constexpr std::int64_t kAlignmentBytes = 64;

std::int64_t aligned_elements(std::int64_t elements, DType dtype) {
  const std::int64_t step = kAlignmentBytes / size_bytes(dtype);
  return (elements + step - 1) / step * step;
}

/// Place of a parameter among the regions.
int region_of(const Parameter& parameter) {
  if (!parameter.has_gradient()) return 2;
  return parameter.of_experts() ? 1 : 0;
}

TensorView part(TensorView flat, std::int64_t offset, const Parameter& parameter) {
  return flat.slice(0, offset, parameter.elements()).reshaped({parameter.rows, parameter.columns});
}

}  // namespace

StorePlan::StorePlan(std::vector<Parameter*> all, DType dtype) : parameters(std::move(all)) {
  std::stable_sort(parameters.begin(), parameters.end(),
                   [](const Parameter* a, const Parameter* b) { return region_of(*a) < region_of(*b); });
  std::int64_t ends[3] = {};
  for (const Parameter* parameter : parameters) {
    offsets.push_back(elements);
    elements += aligned_elements(parameter->elements(), dtype);
    for (int region = region_of(*parameter); region < 3; ++region) ends[region] = elements;
  }
  dense = {0, ends[0]};
  experts = {ends[0], ends[1]};
}

ParameterStore::ParameterStore(std::vector<Parameter*> all, DType dtype, int gradient_sources, Device device)
    : StorePlan(std::move(all), dtype), sources(gradient_sources) {
  values = Tensor(dtype, {elements}, device);
  if (sources > 0) gradients = Tensor(dtype, {dense.end + sources * experts.elements()}, device);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    Parameter* parameter = parameters[i];
    parameter->value = part(values, offsets[i], *parameter);
    if (sources > 0 && parameter->has_gradient()) parameter->grad = part(gradients, offsets[i], *parameter);
    if (parameter->of_experts() && sources > 1 && parameter->has_gradient()) {
      parameter->grads_by_source = parameter->grad;
      parameter->grads_by_source.shape = {sources, parameter->rows, parameter->columns};
      parameter->grads_by_source.strides = {experts.elements(), parameter->columns, 1};
    }
  }
}

}  // namespace shoestring
