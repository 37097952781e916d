// Dequantisation in AVX-512: FP8 to half (exact, by shifting), half to single by the processor, one multiplication.
#include <algorithm>

#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"
#include "kernels/quantize_variants.h"

// GCC 12 takes the undefined source operand inside these intrinsics for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

namespace shoestring::quantization::avx512 {
namespace {

constexpr int kQuietNan = 0x7FC00000;

/// E5M2 is the upper half of an IEEE half.
__m512 decode(E5M2, __m256i codes) { return _mm512_cvtph_ps(_mm256_slli_epi16(codes, 8)); }

/// E4M3's fields shifted into a half weigh 2^8 less than they should; its NaN becomes an ordinary number there.
__m512 decode(E4M3, __m256i codes) {
  const __m256i magnitude = _mm256_and_si256(codes, _mm256_set1_epi16(0x7F));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(0x80)), 8);
  const __mmask16 nan = _mm256_cmpeq_epi16_mask(magnitude, _mm256_set1_epi16(0x7F));
  const __m256i half = _mm256_or_si256(sign, _mm256_slli_epi16(magnitude, 7));
  const __m512 value = _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
  return _mm512_mask_mov_ps(value, nan, _mm512_castsi512_ps(_mm512_set1_epi32(kQuietNan)));
}

void store(float* y, __mmask16 keep, __m512 value) { _mm512_mask_storeu_ps(y, keep, value); }

/// Rounds to nearest even; the one NaN there is keeps its upper half.
void store(BFloat16* y, __mmask16 keep, __m512 value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
  _mm512_mask_cvtepi32_storeu_epi16(y, keep, _mm512_srli_epi32(rounded, 16));
}

/// quantize_tile::decode in lanes.
__m512 scaled(__m512 value, __m512 scale) {
  const __m512 x = _mm512_mul_ps(value, scale);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_mov_ps(x, nan, _mm512_castsi512_ps(_mm512_set1_epi32(kQuietNan)));
}

template <class Out, class Payload>
void dequantize_row(const DequantizeArgs& args, std::int64_t row, std::int64_t tile_row) {
  const ConstScaledView& x = args.x;
  const std::int64_t columns = args.y.shape[1];
  const std::int64_t width = x.granularity.columns == 0 ? columns : x.granularity.columns;
  const auto* codes = x.values.as<std::uint8_t>() + row * x.values.strides[0];
  auto* y = args.y.as<Out>() + row * args.y.strides[0];
  alignas(64) float scales[16];
  for (std::int64_t c = 0; c < columns; c += 16) {
    const auto keep = static_cast<__mmask16>(columns - c >= 16 ? 0xFFFF : (1 << (columns - c)) - 1);
    __m512 scale;
    if (width == 1 && x.scales.dtype == DType::f32 && x.scales.strides[1] == 1) {
      scale = _mm512_maskz_loadu_ps(keep, x.scales.as<float>() + tile_row * x.scales.strides[0] + c);
    } else if (width == 1) {
      for (std::int64_t i = 0; i < std::min<std::int64_t>(16, columns - c); ++i) {
        scales[i] = read_scale(x.scales, tile_row, c + i);
      }
      scale = _mm512_maskz_load_ps(keep, scales);
    } else {
      scale = _mm512_set1_ps(read_scale(x.scales, tile_row, c / width));
    }
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_maskz_loadu_epi8(keep, codes + c));
    store(y + c, keep, scaled(decode(Payload{}, wide), scale));
  }
}

template <class Out, class Payload>
void dequantize_matrix(const DequantizeArgs& args) {
  const Segments segments(args.segments, args.y.shape[0], args.x.granularity);
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (args.y.shape[1] * segments.tile_rows()));
  if (segments.tiles() == 1) {  // one scale row for all
    args.stream.workers().split(args.y.shape[0], std::max<std::int64_t>(1, 16384 / args.y.shape[1]),
                                [&](std::int64_t begin, std::int64_t end) {
                                  for (std::int64_t row = begin; row < end; ++row) {
                                    dequantize_row<Out, Payload>(args, row, 0);
                                  }
                                });
    return;
  }
  args.stream.workers().split(segments.tiles(), grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t index = begin; index < end; ++index) {
      const quantize_tile::RowTile rows = segments.tile(index);
      for (std::int64_t row = rows.begin; row < rows.begin + rows.count; ++row) {
        dequantize_row<Out, Payload>(args, row, index);
      }
    }
  });
}

template <class Out>
void dequantize_to(const DequantizeArgs& args) {
  args.x.values.dtype == DType::e4m3 ? dequantize_matrix<Out, E4M3>(args) : dequantize_matrix<Out, E5M2>(args);
}

}  // namespace

std::string refuses_dequantize(const DequantizeArgs& args) {
  if (std::string reason = refuses_device(args); !reason.empty()) return reason;
  if (!cpu_features().avx512) return "this processor has no AVX-512";
  if (args.x.values.strides[1] != 1 || args.y.strides[1] != 1) return "the columns are not contiguous";
  if (args.x.granularity.columns % 16 != 0 && args.x.granularity.columns != 1) return "tiles of odd width";
  return {};
}

void dequantize(const DequantizeArgs& args) {
  args.y.dtype == DType::f32 ? dequantize_to<float>(args) : dequantize_to<BFloat16>(args);
}

}  // namespace shoestring::quantization::avx512

#pragma GCC pop_options
