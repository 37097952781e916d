// SwiGLU in AVX-512, from f32, bf16, or e4m3 with 1x128 scales dequantised as it is read. Where the output is bf16 the
// sigmoid is computed to 2^-13.5, a thirtieth of the output's own rounding.
#include <algorithm>
#include <limits>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/exp_avx512.h"
#include "kernels/lanes_avx512.h"
#include "kernels/swiglu.h"
#include "kernels/swiglu_rows.h"

// GCC 12 takes undefined operands inside its own intrinsics for uninitialised values (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace shoestring::swiglu::avx512 {

std::string refuses(const SwigluArgs& args) { return needs_avx512(args, args.y.dtype); }
std::string refuses(const SwigluGradientArgs& args) { return needs_avx512(args, args.dy.dtype); }

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
namespace {

using namespace lanes_avx512;

// One row of gate_up: 16 values from a column on.
template <class In>
class InputRow {
 public:
  InputRow(const ConstScaledView& gate_up, std::int64_t row)
      : values_(gate_up.values.as<In>() + row * gate_up.values.strides[0]) {}
  __m512 at(std::int64_t column, __mmask16 mask) const { return load(values_ + column, mask); }

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
  // The fields of E4M3 shifted into those of a half weigh 2^8 less than they should; its NaN is put back.
  __m512 at(std::int64_t column, __mmask16 mask) const {
    const __m256i codes = _mm256_cvtepu8_epi16(_mm_maskz_loadu_epi8(mask, values_ + column));
    const __m256i magnitude = _mm256_and_si256(codes, _mm256_set1_epi16(0x7F));
    const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(0x80)), 8);
    const __mmask16 nan = _mm256_cmpeq_epi16_mask(magnitude, _mm256_set1_epi16(0x7F));
    const __m512 halves = _mm512_cvtph_ps(_mm256_or_si256(sign, _mm256_slli_epi16(magnitude, 7)));
    const __m512 value = _mm512_mul_ps(_mm512_mul_ps(halves, _mm512_set1_ps(256.0f)),
                                       _mm512_set1_ps(tile_scale(scales_, row_, column / 128)));
    return _mm512_mask_mov_ps(value, nan, _mm512_set1_ps(std::numeric_limits<float>::quiet_NaN()));
  }

 private:
  const std::uint8_t* values_;
  ConstTensorView scales_;
  std::int64_t row_;
};

// Clamps of one call; infinite where there are none. A minimum keeps its second operand's NaN.
struct Limits {
  explicit Limits(float clamp)
      : high(_mm512_set1_ps(clamp > 0 ? clamp : std::numeric_limits<float>::infinity())),
        low(_mm512_sub_ps(_mm512_setzero_ps(), high)) {}
  __m512 gate(__m512 x) const { return _mm512_min_ps(high, x); }
  __m512 up(__m512 x) const { return _mm512_min_ps(high, _mm512_max_ps(low, x)); }
  __m512 high, low;
};

Sigmoid sigmoid_for(const float*, __m512 x) { return sigmoid_and_complement(x); }
Sigmoid sigmoid_for(const BFloat16*, __m512 x) { return coarse_sigmoid_and_complement(x); }

float weight_of(ConstTensorView row_weight, std::int64_t row) {
  return row_weight.empty() ? 1.0f : row_weight.as<float>()[row * row_weight.strides[0]];
}

template <class Act, class In>
void forward_rows(const SwigluArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t f = args.y.shape[1];
  const Limits limits(args.clamp);
  for (std::int64_t row = begin; row < end; ++row) {
    const InputRow<In> in(args.gate_up, row);
    const __m512 w = _mm512_set1_ps(weight_of(args.row_weight, row));
    Act* y = args.y.as<Act>() + row * args.y.strides[0];
    for (std::int64_t j = 0; j < f; j += kLanes) {
      const __mmask16 mask = first(f - j);
      const __m512 g = limits.gate(in.at(j, mask));
      const __m512 u = limits.up(in.at(f + j, mask));
      const __m512 a = _mm512_mul_ps(g, sigmoid_for(y, g).value);
      store(y + j, _mm512_mul_ps(_mm512_mul_ps(a, u), w), mask);
    }
  }
}

template <class Act, class In>
void gradient_row(const SwigluGradientArgs& args, const Limits& limits, std::int64_t row) {
  const std::int64_t f = args.dy.shape[1];
  const InputRow<In> in(args.gate_up, row);
  const __m512 w = _mm512_set1_ps(weight_of(args.row_weight, row));
  const Act* dy = args.dy.as<Act>() + row * args.dy.strides[0];
  Act* dgate = args.dgate_up.as<Act>() + row * args.dgate_up.strides[0];
  Act* y = args.y.empty() ? nullptr : args.y.as<Act>() + row * args.y.strides[0];
  __m512 dw = _mm512_setzero_ps();
  for (std::int64_t j = 0; j < f; j += kLanes) {
    const __mmask16 mask = first(f - j);
    const __m512 gate = in.at(j, mask);
    const __m512 up = in.at(f + j, mask);
    const __m512 gradient = load(dy + j, mask);
    const __m512 g = limits.gate(gate);
    const __m512 u = limits.up(up);
    const Sigmoid s = sigmoid_for(dy, g);
    const __m512 a = _mm512_mul_ps(g, s.value);
    const __m512 au = _mm512_mul_ps(a, u);
    dw = _mm512_fmadd_ps(gradient, au, dw);
    const __m512 weighted = _mm512_mul_ps(gradient, w);
    const __m512 slope = _mm512_fmadd_ps(a, s.complement, s.value);  // s (1 + g (1 - s))
    const __mmask16 gate_passes = _mm512_cmp_ps_mask(gate, limits.high, _CMP_NGT_UQ);
    const __mmask16 up_passes = _mm512_cmp_ps_mask(_mm512_abs_ps(up), limits.high, _CMP_NGT_UQ);
    store(dgate + j, _mm512_maskz_mul_ps(gate_passes, _mm512_mul_ps(weighted, u), slope), mask);
    store(dgate + f + j, _mm512_maskz_mul_ps(up_passes, weighted, a), mask);
    if (y != nullptr) store(y + j, _mm512_mul_ps(au, w), mask);
  }
  if (!args.drow_weight.empty()) args.drow_weight.as<float>()[row * args.drow_weight.strides[0]] = sum(dw);
}

template <class Act, class In>
void gradient_rows(const SwigluGradientArgs& args, std::int64_t begin, std::int64_t end) {
  const Limits limits(args.clamp);
  for (std::int64_t row = begin; row < end; ++row) gradient_row<Act, In>(args, limits, row);
}

}  // namespace
#pragma GCC pop_options

void forward(const SwigluArgs& args) {
  const bool tiled = args.gate_up.values.dtype == DType::e4m3;
  const auto rows = args.y.dtype == DType::f32
                        ? (tiled ? forward_rows<float, E4M3> : forward_rows<float, float>)
                        : (tiled ? forward_rows<BFloat16, E4M3> : forward_rows<BFloat16, BFloat16>);
  args.stream.workers().split(args.y.shape[0], row_grain(args.y.shape[1]),
                              [&](std::int64_t begin, std::int64_t end) { rows(args, begin, end); });
}

void gradient(const SwigluGradientArgs& args) {
  const bool tiled = args.gate_up.values.dtype == DType::e4m3;
  const auto rows = args.dy.dtype == DType::f32
                        ? (tiled ? gradient_rows<float, E4M3> : gradient_rows<float, float>)
                        : (tiled ? gradient_rows<BFloat16, E4M3> : gradient_rows<BFloat16, BFloat16>);
  args.stream.workers().split(args.dy.shape[0], row_grain(args.dy.shape[1]),
                              [&](std::int64_t begin, std::int64_t end) { rows(args, begin, end); });
}

}  // namespace shoestring::swiglu::avx512
