// See gemm_amx_pack.h for the layouts. Decoding: the 7 magnitude bits of an 8-bit code choose one byte of a 128-byte
// table (VPERMI2B), once for each half of the BF16; the sign is put back. A power-of-two scale is added to the exponent
// inside the tables: an even one to the high bytes, an odd one through tables of doubled values. Zeros, infinities and
// NaN stay what they are.
#include "kernels/gemm_amx_pack.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

// GCC 12 takes the undefined source operand inside these intrinsics for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

namespace shoestring::gemm_detail::amx {
namespace {

constexpr std::int64_t kTileBytes = 1024;
constexpr std::int64_t kStep = 32;  // of k in one tile
constexpr std::int64_t kStepBytes = 2 * kTileBytes;
constexpr std::int64_t kTile = 16;

/// BF16 bytes of the 128 magnitudes of a format; `scaled` marks the codes whose exponent a scale may move.
struct alignas(64) ByteTables {
  std::uint8_t low[2][128];  ///< [value, value * 2]
  std::uint8_t high[2][128];
  std::uint64_t scaled[2] = {};
};

template <class Code>
ByteTables tables_of_format() {
  ByteTables tables;
  for (std::size_t code = 0; code < 128; ++code) {
    Code value;
    value.bits = static_cast<std::uint8_t>(code);
    const auto bits = std::bit_cast<std::uint32_t>(float{value}) >> 16;
    const bool scaled = code != 0 && bits < 0x7F80u;
    const std::uint32_t doubled = scaled ? bits + 0x80u : bits;
    tables.low[0][code] = static_cast<std::uint8_t>(bits);
    tables.high[0][code] = static_cast<std::uint8_t>(bits >> 8);
    tables.low[1][code] = static_cast<std::uint8_t>(doubled);
    tables.high[1][code] = static_cast<std::uint8_t>(doubled >> 8);
    if (scaled) tables.scaled[code / 64] |= std::uint64_t{1} << code % 64;
  }
  return tables;
}

const ByteTables& tables_of(DType dtype) {
  static const ByteTables e4m3 = tables_of_format<E4M3>();
  static const ByteTables e5m2 = tables_of_format<E5M2>();
  return dtype == DType::e5m2 ? e5m2 : e4m3;
}

int exponent_of(float scale) { return static_cast<int>(std::bit_cast<std::uint32_t>(scale) >> 23) - 127; }

}  // namespace
}  // namespace shoestring::gemm_detail::amx

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")

#include "kernels/cleared_avx512.h"
#include "kernels/gemm_tile_avx512.h"

namespace shoestring::gemm_detail::amx {
namespace {

[[gnu::always_inline]] inline __mmask64 first_bytes(std::int64_t count) {
  return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1u;
}

[[gnu::always_inline]] inline __mmask32 first_words(std::int64_t count) {
  return count >= 32 ? ~std::uint32_t{0} : (std::uint32_t{1} << count) - 1u;
}

/// 8-bit codes to BF16, times a power of two.
class Decoder {
 public:
  explicit Decoder(const ByteTables& tables) : tables_(&tables) { set_exponent(0); }

  [[gnu::always_inline]] void set_exponent(int exponent) {
    const int odd = exponent & 1;
    const __m512i half = _mm512_set1_epi8(static_cast<char>((exponent - odd) / 2));
    low0_ = _mm512_load_si512(tables_->low[odd]);
    low1_ = _mm512_load_si512(tables_->low[odd] + 64);
    high0_ = _mm512_load_si512(tables_->high[odd]);
    high1_ = _mm512_load_si512(tables_->high[odd] + 64);
    high0_ = _mm512_mask_add_epi8(high0_, tables_->scaled[0], high0_, half);
    high1_ = _mm512_mask_add_epi8(high1_, tables_->scaled[1], high1_, half);
  }

  /// Codes 0..31 become `first`, 32..63 `second`, in order.
  [[gnu::always_inline]] void decode(__m512i codes, __m512i& first, __m512i& second) const {
    codes = cleared::permute_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);
    const __m512i low = _mm512_permutex2var_epi8(low0_, codes, low1_);
    const __m512i magnitude = _mm512_permutex2var_epi8(high0_, codes, high1_);
    const __m512i high = _mm512_ternarylogic_epi64(magnitude, codes, _mm512_set1_epi8(-128), 0xF8);  // | (codes & sign)
    first = _mm512_unpacklo_epi8(low, high);
    second = _mm512_unpackhi_epi8(low, high);
  }

 private:
  const ByteTables* tables_;
  __m512i low0_;
  __m512i low1_;
  __m512i high0_;
  __m512i high1_;
};

[[gnu::always_inline]] inline void store_tile(const Tile& t, std::byte* to) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_store_si512(to + i * 64, t.row[i]);
}

/// Rows of k, k contiguous.
class RowReader {
 public:
  explicit RowReader(const Operand& o)
      : o_(o), bytes_(size_bytes(o.dtype) == 1), decoder_(tables_of(bytes_ ? o.dtype : DType::e4m3)) {}

  /// 64 of k of one row, from `k` on; zeros outside the operand. A row is read from its beginning to its end, unless
  /// `jump` says that the last call was elsewhere. (Tiles of scales are 32 or 128 long, or 0: only k = 0 begins one.)
  [[gnu::always_inline]] void read(std::int64_t row, std::int64_t k, bool jump, __m512i& x, __m512i& y) {
    const std::int64_t count = std::min<std::int64_t>(64, o_.k - k);
    if (row >= o_.rows || count <= 0) {
      x = y = _mm512_setzero_si512();
    } else if (bytes_) {
      const auto* from = static_cast<const std::uint8_t*>(o_.values) + row * o_.row_stride + k;
      const __m512i codes = _mm512_maskz_loadu_epi8(first_bytes(count), from);
      if (o_.folded && (jump || (k & (o_.k_per_scale - 1)) == 0)) {
        decoder_.set_exponent(exponent_of(o_.scale(row, k)));
      }
      decoder_.decode(codes, x, y);
      if (o_.folded && o_.k_per_scale == 32 && count > 32) {
        __m512i unused;
        decoder_.set_exponent(exponent_of(o_.scale(row, k + 32)));
        decoder_.decode(codes, unused, y);
      }
    } else {
      const auto* from = static_cast<const std::uint16_t*>(o_.values) + row * o_.row_stride + k;
      x = _mm512_maskz_loadu_epi16(first_words(count), from);
      y = count > 32 ? _mm512_maskz_loadu_epi16(first_words(count - 32), from + 32) : _mm512_setzero_si512();
    }
  }

  /// 16 rows from `begin`, 64 of k from `k` into two tiles.
  [[gnu::always_inline]] void read(std::int64_t begin, std::int64_t k, Tile& first, Tile& second) {
    for (std::int64_t r = 0; r < kTile; ++r) read(begin + r, k, true, first.row[r], second.row[r]);
  }

 private:
  const Operand& o_;
  bool bytes_;
  Decoder decoder_;
};

/// Pairs of k: 16 pairs from `k`, rows of the operand from `begin` into two tiles of 16. Rows contiguous.
class PairReader {
 public:
  explicit PairReader(const Operand& o)
      : o_(o), bytes_(size_bytes(o.dtype) == 1), decoder_(tables_of(bytes_ ? o.dtype : DType::e4m3)) {}

  [[gnu::always_inline]] void read(std::int64_t begin, std::int64_t k, Tile& first, Tile& second) {
    const std::int64_t count = std::clamp<std::int64_t>(o_.rows - begin, 0, 32);
    const __mmask32 columns = first_words(count);
    const bool by_row = o_.folded && o_.rows_per_scale == 1;
    if (by_row) {
      load_exponents(begin, k, count);
    } else if (o_.folded && count > 0) {
      decoder_.set_exponent(exponent_of(o_.scale(begin, k)));
    }
    for (std::int64_t p = 0; p < kTile; ++p) {
      const std::int64_t even = k + 2 * p;
      const __mmask32 even_mask = even < o_.k ? columns : 0;
      const __mmask32 odd_mask = even + 1 < o_.k ? columns : 0;
      __m512i& x = first.row[p];
      __m512i& y = second.row[p];
      if (bytes_) {
        const auto* from = static_cast<const std::uint8_t*>(o_.values) + even * o_.k_stride + begin;
        fetch_ahead(from);
        const __m512i low = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(even_mask, from));
        const __m512i high = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(odd_mask, from + o_.k_stride));
        decoder_.decode(_mm512_or_si512(low, _mm512_slli_epi16(high, 8)), x, y);
        if (by_row) {
          x = add_exponent(x, exponents_[0]);
          y = add_exponent(y, exponents_[1]);
        }
      } else {
        const auto* from = static_cast<const std::uint16_t*>(o_.values) + even * o_.k_stride + begin;
        fetch_ahead(from);
        const __m512i low = _mm512_maskz_loadu_epi16(even_mask, from);
        const __m512i high = _mm512_maskz_loadu_epi16(odd_mask, from + o_.k_stride);
        x = interleave(_mm512_castsi512_si256(low), _mm512_castsi512_si256(high));
        y = interleave(_mm512_extracti64x4_epi64(low, 1), _mm512_extracti64x4_epi64(high, 1));
      }
    }
  }

 private:
  [[gnu::always_inline]] static __m512i interleave(__m256i low, __m256i high) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
  }

  /// The same columns one tile of k later: rows lie too far apart for the processor to see the pattern.
  template <class Element>
  [[gnu::always_inline]] void fetch_ahead(const Element* from) const {
    _mm_prefetch(reinterpret_cast<const char*>(from + kStep * o_.k_stride), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(from + (kStep + 1) * o_.k_stride), _MM_HINT_T0);
  }

  void load_exponents(std::int64_t begin, std::int64_t k, std::int64_t count) {
    alignas(64) std::uint32_t words[32] = {};
    for (std::int64_t i = 0; i < count; ++i) {
      const auto shift = static_cast<std::uint32_t>(exponent_of(o_.scale(begin + i, k)) * 128) & 0xFFFFu;
      words[i] = shift | shift << 16;
    }
    exponents_[0] = _mm512_load_si512(words);
    exponents_[1] = _mm512_load_si512(words + 16);
  }

  /// Zeros, infinities and NaN have magnitude - 1 (unsigned) at or above 0x7F7F.
  [[gnu::always_inline]] static __m512i add_exponent(__m512i x, __m512i exponent) {
    const __m512i magnitude = _mm512_and_si512(x, _mm512_set1_epi16(0x7FFF));
    const __m512i less = _mm512_sub_epi16(magnitude, _mm512_set1_epi16(1));
    return _mm512_mask_add_epi16(x, _mm512_cmplt_epu16_mask(less, _mm512_set1_epi16(0x7F7F)), x, exponent);
  }

  const Operand& o_;
  bool bytes_;
  Decoder decoder_;
  __m512i exponents_[2];
};

}  // namespace

void pack_rows(const Operand& a, std::int64_t begin, std::int64_t rows, void* to) {
  auto* out = static_cast<std::byte*>(to);
  const std::int64_t steps = divide_up(a.k, kStep);
  if (a.k_stride == 1) {
    RowReader reader(a);
    for (std::int64_t row = 0; row < round_up(rows, kTile); ++row) {
      std::byte* line = out + row / 32 * steps * kStepBytes + row % 32 * 64;  // the second tile follows the first
      for (std::int64_t step = 0; step < steps; step += 2) {
        __m512i x;
        __m512i y;
        reader.read(begin + row, step * kStep, false, x, y);
        _mm512_store_si512(line + step * kStepBytes, x);
        if (step + 1 < steps) _mm512_store_si512(line + (step + 1) * kStepBytes, y);
      }
    }
    return;
  }
  Tile first;
  Tile second;
  PairReader reader(a);
  for (std::int64_t step = 0; step < steps; ++step) {
    for (std::int64_t row = 0; row < rows; row += 32) {
      std::byte* block = out + (row / 32 * steps + step) * kStepBytes;
      reader.read(begin + row, step * kStep, first, second);
      transpose(first);
      store_tile(first, block);
      transpose(second);
      store_tile(second, block + kTileBytes);
    }
  }
}

void pack_panels(const Operand& b, std::int64_t first_column, std::int64_t panels, void* to) {
  auto* out = static_cast<std::byte*>(to);
  const std::int64_t steps = divide_up(b.k, kStep);
  Tile first;
  Tile second;
  if (b.k_stride == 1) {
    RowReader reader(b);
    for (std::int64_t half = 0; half < 2 * panels; ++half) {
      std::byte* panel = out + half / 2 * steps * kStepBytes + half % 2 * kTileBytes;
      for (std::int64_t step = 0; step < steps; step += 2) {
        reader.read(first_column + half * kTile, step * kStep, first, second);
        transpose(first);
        store_tile(first, panel + step * kStepBytes);
        if (step + 1 == steps) continue;
        transpose(second);
        store_tile(second, panel + (step + 1) * kStepBytes);
      }
    }
    return;
  }
  PairReader reader(b);
  for (std::int64_t step = 0; step < steps; ++step) {  // all panels of a row of k: whole lines, one page at a time
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      std::byte* at = out + (panel * steps + step) * kStepBytes;
      reader.read(first_column + panel * kPanel, step * kStep, first, second);
      store_tile(first, at);
      store_tile(second, at + kTileBytes);
    }
  }
}

}  // namespace shoestring::gemm_detail::amx
#pragma GCC pop_options
