#include "kernels/fill.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"

namespace shoestring {
namespace {

constexpr std::int64_t kGrain = 16384;

template <class Element>
void fill_elements(TensorView x, Element value, Stream& stream) {
  Element* const elements = x.as<Element>();
  stream.workers().split(x.elements(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::fill(elements + begin, elements + end, value);
  });
}

}  // namespace

void fill(TensorView x, double value, Stream& stream) {
  check(x.contiguous() && x.device.kind == DeviceKind::cpu, "fill: {} is not dense in host memory", x.to_string());
  switch (x.dtype) {
    case DType::f64: return fill_elements(x, value, stream);
    case DType::f32: return fill_elements(x, static_cast<float>(value), stream);
    case DType::bf16: return fill_elements(x, BFloat16(static_cast<float>(value)), stream);
    case DType::i64: return fill_elements(x, static_cast<std::int64_t>(value), stream);
    case DType::i32: return fill_elements(x, static_cast<std::int32_t>(value), stream);
    default: fail(ExitCode::bug, "fill: {} is no format for a value", x.to_string());
  }
}

}  // namespace shoestring
