// SwiGLU in vectors, from f32, bf16, or e4m3 with 1x128 scales dequantised as it is read. Compiled once for each
// instruction set. Where the output is bf16 the sigmoid is computed to 2^-13.5, a thirtieth of the output's rounding.
#include <algorithm>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/swiglu.h"
#include "kernels/swiglu_rows.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/swiglu_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/exp_simd.h"
#include "kernels/quantize_lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::swiglu::HWY_NAMESPACE {
namespace {

using namespace shoestring::HWY_NAMESPACE::lanes;

// One row of gate_up: sixteen values from a column on.
template <class In>
class InputRow {
 public:
  InputRow(const ConstScaledView& gate_up, std::int64_t row)
      : values_(gate_up.values.as<In>() + row * gate_up.values.strides[0]) {}
  template <class Lanes>
  HWY_INLINE Floats at(std::int64_t column, Lanes lanes) const {
    return load(values_ + column, lanes);
  }

 private:
  const In* values_;
};

template <>
class InputRow<E4M3> {
 public:
  InputRow(const ConstScaledView& gate_up, std::int64_t row)
      : values_(gate_up.values.as<std::uint8_t>() + row * gate_up.values.strides[0]),
        scales_(gate_up.scales),
        row_(row) {}
  HWY_INLINE Floats at(std::int64_t column, All) const { return at(column, First{kLanes}); }
  HWY_INLINE Floats at(std::int64_t column, First lanes) const {
    const Floats scale = broadcast(tile_scale(scales_, row_, column / 128));
    return shoestring::HWY_NAMESPACE::quantize_lanes::decode<E4M3>(values_ + column, scale, lanes);
  }

 private:
  const std::uint8_t* values_;
  ConstTensorView scales_;
  std::int64_t row_;
};

// Clamps of one call. A NaN passes.
template <bool clamped>
struct Limits {
  explicit Limits(float clamp) : high(broadcast(clamp)), low(zeros() - high) {}
  HWY_INLINE Floats gate(Floats x) const { return clamped ? lesser(high, x) : x; }
  HWY_INLINE Floats up(Floats x) const { return clamped ? lesser(high, greater(low, x)) : x; }
  /// The gradient of what was clamped is 0.
  HWY_INLINE Floats past_gate(Floats gate, Floats gradient) const {
    return clamped ? drop(high < gate, gradient) : gradient;
  }
  HWY_INLINE Floats past_up(Floats up, Floats gradient) const {
    return clamped ? drop(high < abs(up), gradient) : gradient;
  }
  Floats high, low;
};

HWY_INLINE Sigmoid sigmoid_for(const float*, Floats x) { return sigmoid_and_complement(x); }
HWY_INLINE Sigmoid sigmoid_for(const BFloat16*, Floats x) { return coarse_sigmoid_and_complement(x); }

float weight_of(ConstTensorView row_weight, std::int64_t row) {
  return row_weight.empty() ? 1.0f : row_weight.as<float>()[row * row_weight.strides[0]];
}

template <class Act, class In, bool clamped>
void forward_rows(const SwigluArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t f = args.y.shape[1];
  const Limits<clamped> limits(args.clamp);
  for (std::int64_t row = begin; row < end; ++row) {
    const InputRow<In> in(args.gate_up, row);
    const Floats w = broadcast(weight_of(args.row_weight, row));
    Act* y = args.y.as<Act>() + row * args.y.strides[0];
    const auto some = [&](std::int64_t j, auto lanes) HWY_ATTR {
      const Floats g = limits.gate(in.at(j, lanes));
      const Floats u = limits.up(in.at(f + j, lanes));
      store(y + j, g * sigmoid_for(y, g).value * u * w, lanes);
    };
    std::int64_t j = 0;
    for (; j + kLanes <= f; j += kLanes) some(j, All());
    if (j < f) some(j, first(f - j));
  }
}

template <class Act, class In, bool clamped>
void gradient_row(const SwigluGradientArgs& args, const Limits<clamped>& limits, std::int64_t row) {
  const std::int64_t f = args.dy.shape[1];
  const InputRow<In> in(args.gate_up, row);
  const Floats w = broadcast(weight_of(args.row_weight, row));
  const Act* dy = args.dy.as<Act>() + row * args.dy.strides[0];
  Act* dgate = args.dgate_up.as<Act>() + row * args.dgate_up.strides[0];
  Act* y = args.y.empty() ? nullptr : args.y.as<Act>() + row * args.y.strides[0];
  Floats dw = zeros();
  const auto some = [&](std::int64_t j, auto lanes) HWY_ATTR {
    const Floats gate = in.at(j, lanes);
    const Floats up = in.at(f + j, lanes);
    const Floats gradient = load(dy + j, lanes);
    const Floats g = limits.gate(gate);
    const Floats u = limits.up(up);
    const Sigmoid s = sigmoid_for(dy, g);
    const Floats a = g * s.value;
    const Floats au = a * u;
    dw = fma(gradient, au, dw);
    const Floats weighted = gradient * w;
    const Floats slope = fma(a, s.complement, s.value);  // s (1 + g (1 - s))
    store(dgate + j, limits.past_gate(gate, weighted * u * slope), lanes);
    store(dgate + f + j, limits.past_up(up, weighted * a), lanes);
    if (y != nullptr) store(y + j, au * w, lanes);
  };
  std::int64_t j = 0;
  for (; j + kLanes <= f; j += kLanes) some(j, All());
  if (j < f) some(j, first(f - j));
  if (!args.drow_weight.empty()) args.drow_weight.as<float>()[row * args.drow_weight.strides[0]] = sum(dw);
}

template <class Act, class In, bool clamped>
void gradient_rows(const SwigluGradientArgs& args, std::int64_t begin, std::int64_t end) {
  const Limits<clamped> limits(args.clamp);
  for (std::int64_t row = begin; row < end; ++row) gradient_row<Act, In>(args, limits, row);
}

template <bool clamped>
void forward(const SwigluArgs& args, std::int64_t begin, std::int64_t end) {
  const bool tiled = args.gate_up.values.dtype == DType::e4m3;
  const auto rows = args.y.dtype == DType::f32
                        ? (tiled ? forward_rows<float, E4M3, clamped> : forward_rows<float, float, clamped>)
                        : (tiled ? forward_rows<BFloat16, E4M3, clamped> : forward_rows<BFloat16, BFloat16, clamped>);
  rows(args, begin, end);
}

template <bool clamped>
void gradient(const SwigluGradientArgs& args, std::int64_t begin, std::int64_t end) {
  const bool tiled = args.gate_up.values.dtype == DType::e4m3;
  const auto rows = args.dy.dtype == DType::f32
                        ? (tiled ? gradient_rows<float, E4M3, clamped> : gradient_rows<float, float, clamped>)
                        : (tiled ? gradient_rows<BFloat16, E4M3, clamped> : gradient_rows<BFloat16, BFloat16, clamped>);
  rows(args, begin, end);
}

}  // namespace

void forward(const SwigluArgs& args, std::int64_t begin, std::int64_t end) {
  args.clamp > 0 ? forward<true>(args, begin, end) : forward<false>(args, begin, end);
}

void gradient(const SwigluGradientArgs& args, std::int64_t begin, std::int64_t end) {
  args.clamp > 0 ? gradient<true>(args, begin, end) : gradient<false>(args, begin, end);
}

}  // namespace shoestring::swiglu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::swiglu::simd {

std::string refuses(const SwigluArgs& args) { return needs_simd(args, args.y.dtype); }
std::string refuses(const SwigluGradientArgs& args) { return needs_simd(args, args.dy.dtype); }

void forward(const SwigluArgs& args) {
  const auto rows = SHOESTRING_SIMD(forward);
  args.stream.workers().split(args.y.shape[0], row_grain(args.y.shape[1]),
                              [&](std::int64_t begin, std::int64_t end) { rows(args, begin, end); });
}

void gradient(const SwigluGradientArgs& args) {
  const auto rows = SHOESTRING_SIMD(gradient);
  args.stream.workers().split(args.dy.shape[0], row_grain(args.dy.shape[1]),
                              [&](std::int64_t begin, std::int64_t end) { rows(args, begin, end); });
}

}  // namespace shoestring::swiglu::simd
#endif
