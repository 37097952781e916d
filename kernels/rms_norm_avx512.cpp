// RMSNorm in AVX-512: a row is read twice, the second time from cache.
#include <algorithm>
#include <cmath>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/lanes_avx512.h"
#include "kernels/rms_norm.h"
#include "kernels/rms_norm_rows.h"

// GCC 12 takes undefined operands inside its own intrinsics for uninitialised values (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace shoestring::rms_norm::avx512 {

std::string refuses(const RmsNormArgs& args) { return needs_avx512(args, args.x.dtype); }
std::string refuses(const RmsNormInputGradientArgs& args) { return needs_avx512(args, args.x.dtype); }
std::string refuses(const RmsNormWeightGradientArgs& args) { return needs_avx512(args, args.x.dtype); }

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
namespace {

using namespace lanes_avx512;

// sum = x + residual, rounded to the format; returns the sum of squares of the rounded values.
template <class Act>
float add_and_square(const Act* x, const Act* residual, Act* total, std::int64_t width) {
  __m512 squares[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (std::int64_t j = 0; j < width; j += kLanes) {
    const __mmask16 mask = first(width - j);
    const __m512 s = rounded(total, _mm512_add_ps(load(x + j, mask), load(residual + j, mask)));
    store(total + j, s, mask);
    squares[j / kLanes % 2] = _mm512_fmadd_ps(s, s, squares[j / kLanes % 2]);
  }
  return sum(_mm512_add_ps(squares[0], squares[1]));
}

// Four running sums hide the latency of the fused multiply-add.
template <class Act>
float sum_of_squares(const Act* x, std::int64_t width) {
  __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
  std::int64_t j = 0;
  for (; j + 4 * kLanes <= width; j += 4 * kLanes) {
    const __m512 x0 = load(x + j), x1 = load(x + j + kLanes), x2 = load(x + j + 2 * kLanes),
                 x3 = load(x + j + 3 * kLanes);
    a = _mm512_fmadd_ps(x0, x0, a);
    b = _mm512_fmadd_ps(x1, x1, b);
    c = _mm512_fmadd_ps(x2, x2, c);
    d = _mm512_fmadd_ps(x3, x3, d);
  }
  for (; j < width; j += kLanes) {
    const __m512 rest = load(x + j, first(width - j));
    a = _mm512_fmadd_ps(rest, rest, a);
  }
  return sum(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
}

template <class Act>
void forward_rows(const RmsNormArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = row_width(args.x);
  const Rows<Act, ConstTensorView> x(args.x), residual(args.residual);
  const Rows<Act, TensorView> y(args.y), total(args.sum);
  const RowStatistics<float, TensorView> rstd(args.rstd);
  const float* gamma = args.gamma.as<float>();
  for (std::int64_t row = begin; row < end; ++row) {
    const Act* s = x[row];
    float squares;
    if (residual[row] != nullptr) {
      squares = add_and_square(s, residual[row], total[row], width);
      s = total[row];
    } else {
      squares = sum_of_squares(s, width);
    }
    const float r = 1.0f / std::sqrt(squares / static_cast<float>(width) + args.eps);
    if (rstd) rstd[row] = r;
    const __m512 factor = _mm512_set1_ps(r);
    Act* to = y[row];
    std::int64_t j = 0;
    for (; j + kLanes <= width; j += kLanes) {
      store(to + j, _mm512_mul_ps(_mm512_mul_ps(load(s + j), factor), load(gamma + j)));
    }
    if (j < width) {
      const __mmask16 mask = first(width - j);
      store(to + j, _mm512_mul_ps(_mm512_mul_ps(load(s + j, mask), factor), load(gamma + j, mask)), mask);
    }
  }
}

template <class Act>
void input_gradient_rows(const RmsNormInputGradientArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = row_width(args.x);
  const Rows<Act, ConstTensorView> x_rows(args.x), dy_rows(args.dy);
  const Rows<Act, TensorView> dx_rows(args.dx);
  const RowStatistics<float, ConstTensorView> rstd(args.rstd);
  const float* gamma = args.gamma.as<float>();
  for (std::int64_t row = begin; row < end; ++row) {
    const Act* x = x_rows[row];
    const Act* dy = dy_rows[row];
    Act* dx = dx_rows[row];
    __m512 a = _mm512_setzero_ps(), b = a;
    std::int64_t j = 0;
    for (; j + 2 * kLanes <= width; j += 2 * kLanes) {
      a = _mm512_fmadd_ps(_mm512_mul_ps(load(dy + j), load(gamma + j)), load(x + j), a);
      b = _mm512_fmadd_ps(_mm512_mul_ps(load(dy + j + kLanes), load(gamma + j + kLanes)), load(x + j + kLanes), b);
    }
    for (; j < width; j += kLanes) {
      const __mmask16 mask = first(width - j);
      a = _mm512_fmadd_ps(_mm512_mul_ps(load(dy + j, mask), load(gamma + j, mask)), load(x + j, mask), a);
    }
    // dx = rstd * (dy gamma - x * k), k = rstd^2 * mean(dy gamma x)
    const float r = rstd[row];
    const __m512 k = _mm512_set1_ps(r * r * (sum(_mm512_add_ps(a, b)) / static_cast<float>(width)));
    const __m512 factor = _mm512_set1_ps(r);
    for (j = 0; j < width; j += kLanes) {
      const __mmask16 mask = first(width - j);
      const __m512 centred =
          _mm512_fnmadd_ps(load(x + j, mask), k, _mm512_mul_ps(load(dy + j, mask), load(gamma + j, mask)));
      const __m512 before = args.accumulate ? load(dx + j, mask) : _mm512_setzero_ps();
      store(dx + j, _mm512_fmadd_ps(factor, centred, before), mask);
    }
  }
}

constexpr std::int64_t kColumns = 512;  // of one pass: their sums stay in the first cache

// dgamma of columns [begin, end) over all rows, one row block after the other.
template <class Act>
void weight_gradient_columns(const RmsNormWeightGradientArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t rows = row_count(args.x);
  const Rows<Act, ConstTensorView> x(args.x), dy(args.dy);
  const RowStatistics<float, ConstTensorView> rstd(args.rstd);
  float* dgamma = args.dgamma.as<float>();
  alignas(64) float block_sum[kColumns];
  for (std::int64_t column = begin; column < end; column += kColumns) {
    const std::int64_t count = std::min(kColumns, end - column);
    for (std::int64_t block = 0; block < rows; block += kRmsNormRowBlock) {
      for (std::int64_t j = 0; j < count; j += kLanes) store(block_sum + j, _mm512_setzero_ps());
      for (std::int64_t row = block; row < std::min(rows, block + kRmsNormRowBlock); ++row) {
        const Act* x_row = x[row] + column;
        const Act* dy_row = dy[row] + column;
        const __m512 r = _mm512_set1_ps(rstd[row]);
        for (std::int64_t j = 0; j < count; j += kLanes) {
          const __mmask16 mask = first(count - j);
          const __m512 term = _mm512_mul_ps(load(x_row + j, mask), r);
          store(block_sum + j, _mm512_fmadd_ps(term, load(dy_row + j, mask), load(block_sum + j)));
        }
      }
      for (std::int64_t j = 0; j < count; j += kLanes) {
        const __mmask16 mask = first(count - j);
        float* to = dgamma + column + j;
        store(to, _mm512_add_ps(load(to, mask), load(block_sum + j)), mask);
      }
    }
  }
}

}  // namespace
#pragma GCC pop_options

void forward(const RmsNormArgs& args) {
  const auto rows = args.x.dtype == DType::f32 ? forward_rows<float> : forward_rows<BFloat16>;
  args.stream.workers().split(row_count(args.x), row_grain(row_width(args.x)),
                              [&](std::int64_t begin, std::int64_t end) { rows(args, begin, end); });
}

void input_gradient(const RmsNormInputGradientArgs& args) {
  const auto rows = args.x.dtype == DType::f32 ? input_gradient_rows<float> : input_gradient_rows<BFloat16>;
  args.stream.workers().split(row_count(args.x), row_grain(row_width(args.x)),
                              [&](std::int64_t begin, std::int64_t end) { rows(args, begin, end); });
}

void weight_gradient(const RmsNormWeightGradientArgs& args) {
  const auto columns = args.x.dtype == DType::f32 ? weight_gradient_columns<float> : weight_gradient_columns<BFloat16>;
  // Small sums stay on the caller; larger ones split the columns, never the sum.
  const std::int64_t grain = args.x.elements() < 32768 ? row_width(args.x) : 32;
  args.stream.workers().split(row_width(args.x), grain,
                              [&](std::int64_t begin, std::int64_t end) { columns(args, begin, end); });
}

}  // namespace shoestring::rms_norm::avx512
