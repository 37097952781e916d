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
  if (parameter.role == ParameterRole::statistic) return 2;
  return parameter.of_experts() ? 1 : 0;
}

TensorView part(TensorView flat, std::int64_t offset, const Parameter& parameter) {
  return flat.slice(0, offset, parameter.elements()).reshaped({parameter.rows, parameter.columns});
}

}  // namespace

ParameterStore::ParameterStore(std::vector<Parameter*> all, DType dtype, int gradient_sources)
    : sources(gradient_sources), parameters(std::move(all)) {
  std::stable_sort(parameters.begin(), parameters.end(),
                   [](const Parameter* a, const Parameter* b) { return region_of(*a) < region_of(*b); });
  std::int64_t ends[3] = {};
  std::int64_t total = 0;
  for (const Parameter* parameter : parameters) {
    total += aligned_elements(parameter->elements(), dtype);
    for (int region = region_of(*parameter); region < 3; ++region) ends[region] = total;
  }
  dense = {0, ends[0]};
  experts = {ends[0], ends[1]};
  values = Tensor(dtype, {total});
  const std::int64_t expert_elements = experts.end - experts.begin;
  if (sources > 0) gradients = Tensor(dtype, {dense.end + sources * expert_elements});
  std::int64_t offset = 0;
  for (Parameter* parameter : parameters) {
    parameter->value = part(values, offset, *parameter);
    if (sources > 0 && parameter->role != ParameterRole::statistic) {
      parameter->grad = part(gradients, offset, *parameter);
    }
    if (parameter->of_experts() && sources > 1) {
      parameter->grads_by_source = parameter->grad;
      parameter->grads_by_source.shape = {sources, parameter->rows, parameter->columns};
      parameter->grads_by_source.strides = {expert_elements, parameter->columns, 1};
    }
    offset += aligned_elements(parameter->elements(), dtype);
  }
}

}  // namespace shoestring
