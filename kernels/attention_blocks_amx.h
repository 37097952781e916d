// Blocks of attention with 32 queries in the lanes of two registers of AVX-512, between products on AMX. For its AMX
// row only.
//
// Scores are kept transposed, [keys][32 queries]: the maximum and the sum over keys then run down the lanes and need
// no horizontal step, and a block of probabilities is at once the right operand of the product with the values.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/attention_variants.h"
#include "kernels/base/dtype.h"

// GCC 12 takes undefined operands inside its own intrinsics for uninitialised values (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

namespace shoestring::attention::blocks {

inline constexpr std::int64_t kQueries = 32;       ///< in the lanes of two registers
inline constexpr std::int64_t kForwardKeys = 128;  ///< keys between two corrections of the running maximum
inline constexpr std::int64_t kNoDiagonal = std::int64_t{1} << 40;
inline constexpr double kLog2E = 1.4426950408889634;
inline constexpr float kLn2 = 0.693147180559945309f;

/// 2^x within 2 ulp, for x <= 127; 0 for x below the subnormals; 2^0 = 1 exactly. 2^x = 2^n 2^r with n = round(x) and
/// a polynomial in r (minimax, 1.4e-7).
__attribute__((always_inline)) inline __m512 exp2(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(0x1.5c08e0p-10f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.3d0c52p-7f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c6b6e6p-5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebf918p-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e428p-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

/// Queries of lanes [16 half, 16 half + 16) that see the key `past` rows below the diagonal's first one; negative
/// `past` = above the diagonal, seen by all.
__attribute__((always_inline)) inline __mmask16 seeing(std::int64_t past, int half) {
  const std::int64_t hidden = past - 16 * half;
  if (hidden <= 0) return 0xFFFF;
  return hidden >= 16 ? __mmask16{0} : static_cast<__mmask16>(0xFFFFu << hidden);
}

/// Rows become columns: 16 x 16 elements of 32 bits.
static inline void transpose16(__m512i row[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    row[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    row[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    row[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    row[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(row[i], row[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(row[i], row[i + 4], 0xDD);
    t[i + 8] = _mm512_shuffle_i32x4(row[i + 8], row[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(row[i + 8], row[i + 12], 0xDD);
  }
  for (int i = 0; i < 8; ++i) {
    row[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    row[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
  }
}

/// The running state of 32 queries, in powers of two: maximum of scale * log2(e) * score, and sum of 2^(that - max).
struct Running {
  __m512 max[2];
  __m512 sum[2];
};

__attribute__((always_inline)) inline Running start() {
  const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  return {{lowest, lowest}, {_mm512_setzero_ps(), _mm512_setzero_ps()}};
}

/// Folds a block of scores [keys][32] into the maximum; returns the factors that older sums must take. The key
/// `diagonal` is the first one that hides lanes.
static inline void raise_maximum(const float* scores, std::int64_t keys, std::int64_t diagonal, float factor,
                                 Running& running, __m512 correction[2]) {
  __m512 highest[2] = {start().max[0], start().max[1]};
  for (std::int64_t key = 0; key < keys; ++key) {
    for (int half = 0; half < 2; ++half) {
      highest[half] = _mm512_mask_max_ps(highest[half], seeing(key - diagonal, half), highest[half],
                                         _mm512_loadu_ps(scores + key * kQueries + 16 * half));
    }
  }
  for (int half = 0; half < 2; ++half) {
    const __m512 raised = _mm512_max_ps(running.max[half], _mm512_mul_ps(highest[half], _mm512_set1_ps(factor)));
    correction[half] = exp2(_mm512_sub_ps(running.max[half], raised));
    const __mmask16 first = _mm512_cmp_ps_mask(running.max[half], start().max[half], _CMP_EQ_OQ);
    correction[half] = _mm512_mask_mov_ps(correction[half], first, _mm512_setzero_ps());
    running.max[half] = raised;
    running.sum[half] = _mm512_mul_ps(running.sum[half], correction[half]);
  }
}

/// rows [rows][32] *= correction, lane by lane; nothing to do where no maximum moved.
static inline void correct(float* sums, std::int64_t rows, const __m512 correction[2]) {
  const __m512 one = _mm512_set1_ps(1.0f);
  if ((_mm512_cmp_ps_mask(correction[0], one, _CMP_NEQ_UQ) | _mm512_cmp_ps_mask(correction[1], one, _CMP_NEQ_UQ)) ==
      0) {
    return;
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    for (int half = 0; half < 2; ++half) {
      float* at = sums + i * kQueries + 16 * half;
      _mm512_storeu_ps(at, _mm512_mul_ps(_mm512_loadu_ps(at), correction[half]));
    }
  }
}

/// The first `count` lanes, all of them from 16 on.
__attribute__((always_inline)) inline __mmask16 first_lanes(std::int64_t count) {
  return count >= 16 ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1u << count) - 1u);
}

/// 16 elements of a row, widened exactly; those outside the mask are 0 and their memory is not touched.
__attribute__((always_inline)) inline __m512 load(const BFloat16* from, __mmask16 mask) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}

/// Rounded to nearest even as BFloat16(float) does, subnormals and NaN included (the processor's own conversion
/// flushes subnormals).
__attribute__((always_inline)) inline __m256i narrow(__m512 value) {
  const __m512i raw = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(raw, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(raw, _mm512_set1_epi32(0x7FFF)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  const __m512i quieted = _mm512_mask_or_epi32(rounded, nan, raw, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(quieted, 16));
}

/// Halves added to halves until one lane is left.
__attribute__((always_inline)) inline float sum(__m512 value) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(value), _mm512_extractf32x8_ps(value, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/// 32 elements of a row, the first `count` of them.
__attribute__((always_inline)) inline void store32(BFloat16* to, __m512 low, __m512 high, std::int64_t count) {
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(narrow(low)), narrow(high), 1);
  if (count >= 32) {
    _mm512_storeu_si512(to, both);
  } else {
    _mm512_mask_storeu_epi16(to, static_cast<__mmask32>((std::uint64_t{1} << count) - 1u), both);
  }
}

/// to[query][dim] = factor[query] * from[dim][query] for `queries` rows and `dims` columns (rounded once). `from` has
/// a multiple of 32 dims.
static inline void write_transposed(BFloat16* to, std::int64_t stride, const float* from, std::int64_t queries,
                                    std::int64_t dims, const __m512 factor[2]) {
  for (int half = 0; half < 2 && 16 * half < queries; ++half) {
    const std::int64_t rows = std::min<std::int64_t>(16, queries - 16 * half);
    for (std::int64_t dim = 0; dim < dims; dim += 32) {
      __m512i block[2][16];
      for (int i = 0; i < 32; ++i) {
        const __m512 value = _mm512_loadu_ps(from + (dim + i) * kQueries + 16 * half);
        block[i / 16][i % 16] = _mm512_castps_si512(_mm512_mul_ps(value, factor[half]));
      }
      transpose16(block[0]);
      transpose16(block[1]);
      for (std::int64_t i = 0; i < rows; ++i) {
        store32(to + (16 * half + i) * stride + dim, _mm512_castsi512_ps(block[0][i]), _mm512_castsi512_ps(block[1][i]),
                dims - dim);
      }
    }
  }
}

/// to[row][column] = factor * from[row][column], `from` with rows of `from_stride` floats, a multiple of 32.
static inline void write_rows(BFloat16* to, std::int64_t stride, const float* from, std::int64_t from_stride,
                              std::int64_t rows, std::int64_t columns, float factor) {
  const __m512 scale = _mm512_set1_ps(factor);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; j += 32) {
      const float* at = from + i * from_stride + j;
      store32(to + i * stride + j, _mm512_mul_ps(_mm512_loadu_ps(at), scale),
              _mm512_mul_ps(_mm512_loadu_ps(at + 16), scale), columns - j);
    }
  }
}

/// lse of up to 32 queries, in natural logarithms.
static inline void write_lse(float* lse, const Running& running, std::int64_t queries) {
  float max[kQueries];
  float sum[kQueries];
  for (int half = 0; half < 2; ++half) {
    _mm512_storeu_ps(max + 16 * half, running.max[half]);
    _mm512_storeu_ps(sum + 16 * half, running.sum[half]);
  }
  for (std::int64_t i = 0; i < queries; ++i) {
    lse[i] = static_cast<float>(static_cast<double>(max[i]) / kLog2E + std::log(static_cast<double>(sum[i])));
  }
}

/// For the gradient: lse * log2(e) and delta = d_o . o of every query, `padded` of them. Queries past the document
/// get an lse of +infinity, so that their probabilities are 0.
static inline void read_statistics(const AttentionBackwardArgs& args, const Document& document, std::int64_t head,
                                   std::int64_t padded, float* lse, float* delta) {
  const std::int64_t v_dim = args.v.shape[2];
  const float* given = args.lse.as<float>() + head * args.q.shape[0] + document.begin;
  for (std::int64_t i = 0; i < padded; ++i) {
    lse[i] = std::numeric_limits<float>::infinity();
    delta[i] = 0.0f;
    if (i >= document.tokens()) continue;
    const std::int64_t ahead = document.begin + std::min<std::int64_t>(i + 16, document.tokens() - 1);
    _mm_prefetch(
        reinterpret_cast<const char*>(args.o.as<BFloat16>() + ahead * args.o.strides[0] + head * args.o.strides[1]),
        _MM_HINT_T0);
    lse[i] = static_cast<float>(static_cast<double>(given[i]) * kLog2E);
    const std::int64_t token = document.begin + i;
    const BFloat16* d_o = args.d_o.as<BFloat16>() + token * args.d_o.strides[0] + head * args.d_o.strides[1];
    const BFloat16* o = args.o.as<BFloat16>() + token * args.o.strides[0] + head * args.o.strides[1];
    __m512 total = _mm512_setzero_ps();
    for (std::int64_t j = 0; j < v_dim; j += 16) {
      const __mmask16 mask = first_lanes(v_dim - j);
      total = _mm512_fmadd_ps(load(d_o + j, mask), load(o + j, mask), total);
    }
    delta[i] = sum(total);
  }
}

}  // namespace shoestring::attention::blocks

#pragma GCC pop_options
