// Products and moves of matrices in squares, for attention in vectors. For that variant only.
//
// An element of a product is one chain of fused multiply-adds in the order of k, however many registers a tile has:
// the bits are the same on every instruction set.
#if defined(SHOESTRING_KERNELS_ATTENTION_PANELS_SIMD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SHOESTRING_KERNELS_ATTENTION_PANELS_SIMD_H_
#undef SHOESTRING_KERNELS_ATTENTION_PANELS_SIMD_H_
#else
#define SHOESTRING_KERNELS_ATTENTION_PANELS_SIMD_H_
#endif

#include "kernels/attention_squares.h"
#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::attention::HWY_NAMESPACE {
namespace {

using namespace simd;
using namespace shoestring::HWY_NAMESPACE::lanes;

/// How a panel reads its left operand: as it stands, or with rows and columns exchanged.
enum class Left { straight, turned };

/// c[rows][16 * wide] (+)= a b over k columns of a. `a_step` is from one sixteen of k to the next.
template <Left left, int rows, int wide>
HWY_INLINE void tile(float* c, std::int64_t c_across, const float* a, std::int64_t a_step, const float* b,
                     std::int64_t b_across, std::int64_t k, bool fresh) {
  Floats sum[rows][wide];
  for (int r = 0; r < rows; ++r) {
    for (int w = 0; w < wide; ++w) sum[r][w] = fresh ? zeros() : load(c + r * kSquare + w * c_across);
  }
  for (; k > 0; k -= kSquare, a += a_step, b += kSquare * kSquare) {
    for (std::int64_t j = 0; j < kSquare; ++j) {
      Floats right[wide];
      for (int w = 0; w < wide; ++w) right[w] = load(b + j * kSquare + w * b_across);
      for (int r = 0; r < rows; ++r) {
        const Floats value = broadcast(left == Left::turned ? a[j * kSquare + r] : a[r * kSquare + j]);
        for (int w = 0; w < wide; ++w) sum[r][w] = fma(value, right[w], sum[r][w]);
      }
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int w = 0; w < wide; ++w) store(c + r * kSquare + w * c_across, sum[r][w]);
  }
}

/// Sixteen rows of c as tiles of rows that fill the registers: 32 of AVX-512 hold 8 x 32 sums and what feeds them, 16
/// of AVX2 hold 6 x 16.
template <Left left>
HWY_INLINE void sixteen_rows(float* c, std::int64_t c_across, const float* a, std::int64_t a_step, const float* b,
                             std::int64_t b_across, std::int64_t k, bool fresh) {
  constexpr std::int64_t down = left == Left::turned ? 1 : kSquare;
  if constexpr (kParts == 1) {
    tile<left, 8, 2>(c, c_across, a, a_step, b, b_across, k, fresh);
    tile<left, 8, 2>(c + 8 * kSquare, c_across, a + 8 * down, a_step, b, b_across, k, fresh);
  } else {
    tile<left, 6, 1>(c, c_across, a, a_step, b, b_across, k, fresh);
    tile<left, 6, 1>(c + 6 * kSquare, c_across, a + 6 * down, a_step, b, b_across, k, fresh);
    tile<left, 4, 1>(c + 12 * kSquare, c_across, a + 12 * down, a_step, b, b_across, k, fresh);
  }
}

/// c[m][n] = a[m][k] b[k][n], or added to c where it is not `fresh`. m and k are multiples of 16, n of 32. `turned`: a
/// is given as its transpose [k][m].
template <Left left>
HWY_NOINLINE void panel(Squares c, Squares a, Squares b, std::int64_t m, std::int64_t n, std::int64_t k, bool fresh) {
  constexpr std::int64_t kWide = kParts == 1 ? 2 : 1;
  const std::int64_t a_step = left == Left::turned ? kSquare * kSquare : a.across;
  const std::int64_t a_down = left == Left::turned ? a.across : kSquare * kSquare;
  for (std::int64_t column = 0; column < n; column += kWide * kSquare) {
    const float* right = b.from(0, column).data;
    float* to = c.from(0, column).data;
    for (std::int64_t i = 0; i < m / kSquare; ++i) {
      sixteen_rows<left>(to + i * kSquare * kSquare, c.across, a.data + i * a_down, a_step, right, b.across, k, fresh);
    }
  }
}

/// Rows become columns, in one square. Four by four through registers of 128 bits, which every set has.
HWY_INLINE void turn_square(float* to, const float* from) {
  const hn::FixedTag<float, 4> four;
  for (std::int64_t r = 0; r < kSquare; r += 4) {
    for (std::int64_t c = 0; c < kSquare; c += 4) {
      const float* at = from + r * kSquare + c;
      const auto r0 = hn::LoadU(four, at), r1 = hn::LoadU(four, at + kSquare);
      const auto r2 = hn::LoadU(four, at + 2 * kSquare), r3 = hn::LoadU(four, at + 3 * kSquare);
      const auto low0 = hn::InterleaveLower(four, r0, r1), low1 = hn::InterleaveLower(four, r2, r3);
      const auto high0 = hn::InterleaveUpper(four, r0, r1), high1 = hn::InterleaveUpper(four, r2, r3);
      float* turned = to + c * kSquare + r;
      hn::StoreU(hn::ConcatLowerLower(four, low1, low0), four, turned);
      hn::StoreU(hn::ConcatUpperUpper(four, low1, low0), four, turned + kSquare);
      hn::StoreU(hn::ConcatLowerLower(four, high1, high0), four, turned + 2 * kSquare);
      hn::StoreU(hn::ConcatUpperUpper(four, high1, high0), four, turned + 3 * kSquare);
    }
  }
}

/// to[columns][rows] = the transpose of from[rows][columns].
inline void turn(Squares to, Squares from, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t i = 0; i < rows; i += kSquare) {
    for (std::int64_t j = 0; j < columns; j += kSquare) turn_square(to.from(j, i).data, from.from(i, j).data);
  }
}

/// Rows of one head, widened; zero up to `padded` rows and the padded dim.
template <class T>
void pack(Squares to, const ConstTensorView& view, std::int64_t head, std::int64_t begin, std::int64_t rows,
          std::int64_t padded) {
  const std::int64_t dims = view.shape[2];
  for (std::int64_t i = 0; i < padded; ++i) {
    const T* from = view.as<T>() + (begin + std::min(i, rows - 1)) * view.strides[0] + head * view.strides[1];
    for (std::int64_t j = 0; j < round_up(dims, 32); j += kSquare) {
      store(to.from(0, j).data + i * kSquare, i < rows && j < dims ? load(from + j, first(dims - j)) : zeros());
    }
  }
}

/// to[row][dim] = factor * from[row][dim], rounded once.
template <class T>
void write_rows(T* to, std::int64_t stride, Squares from, std::int64_t rows, std::int64_t dims, float factor) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < dims; j += kSquare) {
      store(to + i * stride + j, load(from.from(0, j).data + i * kSquare) * broadcast(factor), first(dims - j));
    }
  }
}

/// to[row][dim] = factor[row] * from[dim][row], rounded once.
template <class T>
void write_turned(T* to, std::int64_t stride, Squares from, std::int64_t rows, std::int64_t dims, const float* factor) {
  alignas(64) float square[kSquare * kSquare];
  for (std::int64_t i = 0; i < rows; i += kSquare) {
    for (std::int64_t j = 0; j < dims; j += kSquare) {
      turn_square(square, from.from(j, i).data);
      for (std::int64_t r = 0; r < std::min(kSquare, rows - i); ++r) {
        const Floats value = load(square + r * kSquare) * broadcast(factor[i + r]);
        store(to + (i + r) * stride + j, value, first(dims - j));
      }
    }
  }
}

}  // namespace
}  // namespace shoestring::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
