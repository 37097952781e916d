// RMSNorm in vectors: a row is read twice, the second time from cache. Compiled once for each instruction set.
#include <algorithm>
#include <cmath>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/rms_norm.h"
#include "kernels/rms_norm_rows.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rms_norm_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::rms_norm::HWY_NAMESPACE {
namespace {

using namespace shoestring::HWY_NAMESPACE::lanes;

// sum = x + residual, rounded to the format; returns the sum of squares of the rounded values.
template <class Act>
float add_and_square(const Act* x, const Act* residual, Act* total, std::int64_t width) {
  Floats squares[2] = {zeros(), zeros()};
  for (std::int64_t j = 0; j < width; j += kLanes) {
    const First lanes = first(width - j);
    const Floats s = rounded(total, load(x + j, lanes) + load(residual + j, lanes));
    store(total + j, s, lanes);
    squares[j / kLanes % 2] = fma(s, s, squares[j / kLanes % 2]);
  }
  return sum(squares[0] + squares[1]);
}

// Four running sums hide the latency of the fused multiply-add.
template <class Act>
float sum_of_squares(const Act* x, std::int64_t width) {
  Floats a = zeros(), b = a, c = a, d = a;
  std::int64_t j = 0;
  for (; j + 4 * kLanes <= width; j += 4 * kLanes) {
    const Floats x0 = load(x + j), x1 = load(x + j + kLanes), x2 = load(x + j + 2 * kLanes),
                 x3 = load(x + j + 3 * kLanes);
    a = fma(x0, x0, a);
    b = fma(x1, x1, b);
    c = fma(x2, x2, c);
    d = fma(x3, x3, d);
  }
  for (; j < width; j += kLanes) {
    const Floats rest = load(x + j, first(width - j));
    a = fma(rest, rest, a);
  }
  return sum((a + b) + (c + d));
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
    const Floats factor = broadcast(r);
    Act* to = y[row];
    for (std::int64_t j = 0; j < width; j += kLanes) {
      const First lanes = first(width - j);
      store(to + j, load(s + j, lanes) * factor * load(gamma + j, lanes), lanes);
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
    Floats a = zeros(), b = a;
    std::int64_t j = 0;
    for (; j + 2 * kLanes <= width; j += 2 * kLanes) {
      a = fma(load(dy + j) * load(gamma + j), load(x + j), a);
      b = fma(load(dy + j + kLanes) * load(gamma + j + kLanes), load(x + j + kLanes), b);
    }
    for (; j < width; j += kLanes) {
      const First lanes = first(width - j);
      a = fma(load(dy + j, lanes) * load(gamma + j, lanes), load(x + j, lanes), a);
    }
    // dx = rstd * (dy gamma - x * k), k = rstd^2 * mean(dy gamma x)
    const float r = rstd[row];
    const Floats k = broadcast(r * r * (sum(a + b) / static_cast<float>(width)));
    const Floats factor = broadcast(r);
    for (j = 0; j < width; j += kLanes) {
      const First lanes = first(width - j);
      const Floats centred = fnma(load(x + j, lanes), k, load(dy + j, lanes) * load(gamma + j, lanes));
      const Floats before = args.accumulate ? load(dx + j, lanes) : zeros();
      store(dx + j, fma(factor, centred, before), lanes);
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
      for (std::int64_t j = 0; j < count; j += kLanes) store(block_sum + j, zeros());
      for (std::int64_t row = block; row < std::min(rows, block + kRmsNormRowBlock); ++row) {
        const Act* x_row = x[row] + column;
        const Act* dy_row = dy[row] + column;
        const Floats r = broadcast(rstd[row]);
        for (std::int64_t j = 0; j < count; j += kLanes) {
          const First lanes = first(count - j);
          store(block_sum + j, fma(load(x_row + j, lanes) * r, load(dy_row + j, lanes), load(block_sum + j)));
        }
      }
      for (std::int64_t j = 0; j < count; j += kLanes) {
        const First lanes = first(count - j);
        float* to = dgamma + column + j;
        store(to, load(to, lanes) + load(block_sum + j), lanes);
      }
    }
  }
}

}  // namespace

void forward(const RmsNormArgs& args, std::int64_t begin, std::int64_t end) {
  args.x.dtype == DType::f32 ? forward_rows<float>(args, begin, end) : forward_rows<BFloat16>(args, begin, end);
}

void input_gradient(const RmsNormInputGradientArgs& args, std::int64_t begin, std::int64_t end) {
  args.x.dtype == DType::f32 ? input_gradient_rows<float>(args, begin, end)
                             : input_gradient_rows<BFloat16>(args, begin, end);
}

void weight_gradient(const RmsNormWeightGradientArgs& args, std::int64_t begin, std::int64_t end) {
  args.x.dtype == DType::f32 ? weight_gradient_columns<float>(args, begin, end)
                             : weight_gradient_columns<BFloat16>(args, begin, end);
}

}  // namespace shoestring::rms_norm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::rms_norm::simd {

std::string refuses(const RmsNormArgs& args) { return needs_simd(args, args.x.dtype); }
std::string refuses(const RmsNormInputGradientArgs& args) { return needs_simd(args, args.x.dtype); }
std::string refuses(const RmsNormWeightGradientArgs& args) { return needs_simd(args, args.x.dtype); }

void forward(const RmsNormArgs& args) {
  const auto rows = SHOESTRING_SIMD(forward);
  args.stream.workers().split(row_count(args.x), row_grain(row_width(args.x)),
                              [&](std::int64_t begin, std::int64_t end) { rows(args, begin, end); });
}

void input_gradient(const RmsNormInputGradientArgs& args) {
  const auto rows = SHOESTRING_SIMD(input_gradient);
  args.stream.workers().split(row_count(args.x), row_grain(row_width(args.x)),
                              [&](std::int64_t begin, std::int64_t end) { rows(args, begin, end); });
}

void weight_gradient(const RmsNormWeightGradientArgs& args) {
  const auto columns = SHOESTRING_SIMD(weight_gradient);
  // Small sums stay on the caller; larger ones split the columns, never the sum.
  const std::int64_t grain = args.x.elements() < 32768 ? row_width(args.x) : 32;
  args.stream.workers().split(row_width(args.x), grain,
                              [&](std::int64_t begin, std::int64_t end) { columns(args, begin, end); });
}

}  // namespace shoestring::rms_norm::simd
#endif
