// Inside of gemm_amx.cpp, included behind its target pragma and <immintrin.h>: how finished rows of 32 sums reach c.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/gemm_amx_tiles.h"
#include "kernels/gemm_problem.h"

namespace shoestring::gemm_detail::amx {
namespace {

/// What most products end in: whole rows of a panel are overwritten, with no factor and no bias.
inline bool plain_rows(const Output& out) {
  return out.columns == kPanel && !out.accumulate && out.factor == 1.0f && out.bias == nullptr;
}

inline bool may_bypass(const Output& out) {
  const std::int64_t row_bytes = out.row_stride * (out.dtype == DType::bf16 ? 2 : 4);
  return out.bypass_cache && row_bytes % 64 == 0 && reinterpret_cast<std::uintptr_t>(out.c) % 64 == 0;
}

/// Asks for the line that a row will be written to, into L2: on the way into L1 it would hold one of the few buffers
/// that tiles from L2 come through.
[[gnu::always_inline]] inline void expect_line(const std::byte* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T1);
}

/// Writes plain rows in one format.
template <DType kDtype, bool kBypass>
class PlainRows {
 public:
  explicit PlainRows(const Output& out) : c_(static_cast<std::byte*>(out.c)), row_bytes_(out.row_stride * kBytes) {}

  std::byte* row(std::int64_t index) const { return c_ + index * row_bytes_; }
  std::int64_t row_bytes() const { return row_bytes_; }

  /// To be called some hundreds of cycles before `write`: a store that waits for its line holds up those behind it.
  [[gnu::always_inline]] static void expect(const std::byte* at) {
    if constexpr (kBypass) return;
    expect_line(at);
    if constexpr (kDtype == DType::f32) expect_line(at + 64);
  }

  [[gnu::always_inline]] static void write(std::byte* at, __m512 low, __m512 high) {
    if constexpr (kDtype == DType::bf16) {
      const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
      if constexpr (kBypass) {
        _mm512_stream_si512(reinterpret_cast<__m512i*>(at), both);
      } else {
        _mm512_storeu_si512(at, both);
      }
    } else {
      auto* to = reinterpret_cast<float*>(at);
      if constexpr (kBypass) {
        _mm512_stream_ps(to, low);
        _mm512_stream_ps(to + 16, high);
      } else {
        _mm512_storeu_ps(to, low);
        _mm512_storeu_ps(to + 16, high);
      }
    }
  }

 private:
  static constexpr std::int64_t kBytes = kDtype == DType::bf16 ? 2 : 4;
  std::byte* c_;
  std::int64_t row_bytes_;
};

/// Writes rows with everything that an Output can ask for.
class AnyRows {
 public:
  explicit AnyRows(const Output& out)
      : low_mask_(static_cast<__mmask16>((1u << std::min<std::int64_t>(out.columns, 16)) - 1u)),
        high_mask_(static_cast<__mmask16>((1u << std::max<std::int64_t>(out.columns - 16, 0)) - 1u)),
        factor_(_mm512_set1_ps(out.factor)),
        adjusted_(out.factor != 1.0f || out.bias != nullptr),
        is_bf16_(out.dtype == DType::bf16),
        accumulate_(out.accumulate),
        c_(static_cast<std::byte*>(out.c)),
        row_bytes_(out.row_stride * (is_bf16_ ? 2 : 4)) {
    if (out.bias == nullptr) return;
    if (out.bias_dtype == DType::bf16) {
      const auto* bias = static_cast<const std::uint16_t*>(out.bias);
      bias_low_ = widen(_mm256_maskz_loadu_epi16(low_mask_, bias));
      bias_high_ = widen(_mm256_maskz_loadu_epi16(high_mask_, bias + 16));
    } else {
      const auto* bias = static_cast<const float*>(out.bias);
      bias_low_ = _mm512_maskz_loadu_ps(low_mask_, bias);
      bias_high_ = _mm512_maskz_loadu_ps(high_mask_, bias + 16);
    }
  }

  std::byte* row(std::int64_t index) const { return c_ + index * row_bytes_; }
  std::int64_t row_bytes() const { return row_bytes_; }

  [[gnu::always_inline]] void expect(const std::byte* at) const {
    expect_line(at);
    if (!is_bf16_) expect_line(at + 64);
  }

  [[gnu::always_inline]] void write(std::byte* at, __m512 low, __m512 high) const {
    if (adjusted_) {
      low = _mm512_add_ps(_mm512_mul_ps(low, factor_), bias_low_);
      high = _mm512_add_ps(_mm512_mul_ps(high, factor_), bias_high_);
    }
    if (is_bf16_) {
      write_bf16(reinterpret_cast<std::uint16_t*>(at), low, high);
    } else {
      write_f32(reinterpret_cast<float*>(at), low, high);
    }
  }

 private:
  static __m512 widen(__m256i bits) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)); }

  [[gnu::always_inline]] void write_f32(float* to, __m512 low, __m512 high) const {
    if (accumulate_) {
      low = _mm512_add_ps(low, _mm512_maskz_loadu_ps(low_mask_, to));
      high = _mm512_add_ps(high, _mm512_maskz_loadu_ps(high_mask_, to + 16));
    }
    _mm512_mask_storeu_ps(to, low_mask_, low);
    _mm512_mask_storeu_ps(to + 16, high_mask_, high);
  }

  [[gnu::always_inline]] void write_bf16(std::uint16_t* to, __m512 low, __m512 high) const {
    if (accumulate_) {
      low = _mm512_add_ps(low, widen(_mm256_maskz_loadu_epi16(low_mask_, to)));
      high = _mm512_add_ps(high, widen(_mm256_maskz_loadu_epi16(high_mask_, to + 16)));
    }
    const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
    const auto mask = static_cast<__mmask32>(low_mask_ | static_cast<std::uint32_t>(high_mask_) << 16);
    _mm512_mask_storeu_epi16(to, mask, both);
  }

  __mmask16 low_mask_;
  __mmask16 high_mask_;
  __m512 factor_;
  __m512 bias_low_ = _mm512_setzero_ps();
  __m512 bias_high_ = _mm512_setzero_ps();
  bool adjusted_;
  bool is_bf16_;
  bool accumulate_;
  std::byte* c_;
  std::int64_t row_bytes_;
};

inline constexpr std::int64_t kPromoted = 2;      // blocks of scales whose sums wait together
using BlockSums = std::array<float*, kPromoted>;  // a strip of one row block for each

/// Sums of a row block that go to c as they are.
template <class Rows>
struct FinishedBlock {
  const Rows* writer;
  const float* sums = nullptr;
  std::byte* c = nullptr;  ///< the next row
  std::int64_t row_bytes = writer->row_bytes();
  std::int64_t row = 0;  ///< the next one, of `rows`
  std::int64_t rows = 0;

  [[gnu::always_inline]] void finish(std::int64_t index) {
    const float* at = sums + index * kPanel;
    writer->write(c, _mm512_load_ps(at), _mm512_load_ps(at + 16));
    c += row_bytes;
  }
};

/// A row of sums times its scale and those of the columns.
[[gnu::always_inline]] inline void add_scaled(const float* sums, float row_scale, __m512 low_scales, __m512 high_scales,
                                              __m512& low, __m512& high) {
  const __m512 scale = _mm512_set1_ps(row_scale);
  low = _mm512_fmadd_ps(_mm512_mul_ps(scale, low_scales), _mm512_load_ps(sums), low);
  high = _mm512_fmadd_ps(_mm512_mul_ps(scale, high_scales), _mm512_load_ps(sums + 16), high);
}

/// The same for scaled sums: kPromoted blocks of k are multiplied by their scales and added up.
template <class Rows>
struct WaitingSums {
  const Rows* writer;
  BlockSums sums = {};
  float* strip = nullptr;  ///< where the sum stays until it is complete
  std::byte* c = nullptr;
  std::int64_t row_bytes = writer->row_bytes();
  const float* row_scales = nullptr;     ///< [block][32]
  const float* column_scales = nullptr;  ///< [block][32]
  std::int64_t blocks = 0;
  bool first = false;  ///< the strip holds nothing yet
  bool last = false;   ///< the sum is complete: it goes to c
  std::int64_t row = 0;
  std::int64_t rows = 0;

  [[gnu::always_inline]] void finish(std::int64_t index) {
    float* at = strip + index * kPanel;
    __m512 low = first ? _mm512_setzero_ps() : _mm512_load_ps(at);
    __m512 high = first ? _mm512_setzero_ps() : _mm512_load_ps(at + 16);
    add(0, index, low, high);
    if (blocks == 2) add(1, index, low, high);
    if (last) {
      writer->write(c, low, high);
      c += row_bytes;
    } else {
      _mm512_store_ps(at, low);
      _mm512_store_ps(at + 16, high);
    }
  }

 private:
  [[gnu::always_inline]] void add(std::int64_t block, std::int64_t index, __m512& low, __m512& high) const {
    const float* columns = column_scales + block * kPanel;
    add_scaled(sums[block] + index * kPanel, row_scales[block * kRows + index], _mm512_load_ps(columns),
               _mm512_load_ps(columns + 16), low, high);
  }
};

/// WaitingSums with nothing left to decide.
template <class Rows, int kBlocks, bool kFirst, bool kLast>
struct WaitingWhole {
  const Rows* writer;
  BlockSums sums;
  float* strip;
  std::byte* c;
  std::int64_t row_bytes;
  const float* row_scales;
  __m512 low_scales[kBlocks];
  __m512 high_scales[kBlocks];

  explicit WaitingWhole(const WaitingSums<Rows>& of)
      : writer(of.writer), sums(of.sums), strip(of.strip), c(of.c), row_bytes(of.row_bytes), row_scales(of.row_scales) {
#pragma GCC unroll 2
    for (int block = 0; block < kBlocks; ++block) {
      low_scales[block] = _mm512_load_ps(of.column_scales + block * kPanel);
      high_scales[block] = _mm512_load_ps(of.column_scales + block * kPanel + 16);
    }
  }

  [[gnu::always_inline]] void finish(std::int64_t index) {
    float* at = strip + index * kPanel;
    __m512 low = kFirst ? _mm512_setzero_ps() : _mm512_load_ps(at);
    __m512 high = kFirst ? _mm512_setzero_ps() : _mm512_load_ps(at + 16);
#pragma GCC unroll 2
    for (int block = 0; block < kBlocks; ++block) {
      add_scaled(sums[block] + index * kPanel, row_scales[block * kRows + index], low_scales[block], high_scales[block],
                 low, high);
    }
    if constexpr (kLast) {
      writer->write(c, low, high);
      c += row_bytes;
    } else {
      _mm512_store_ps(at, low);
      _mm512_store_ps(at + 16, high);
    }
  }
};

}  // namespace
}  // namespace shoestring::gemm_detail::amx
