// Rotary position embedding: rotates pairs of elements of every head by an angle that grows with the token's position.
//
//   (a, b) -> (a cos - b sin, b cos + a sin),  angle of pair i at position p = p * frequency[i]
//
// Pairs are neighbours (interleaved: DeepSeek) or half a head apart (half_split: Llama, Qwen, Mixtral). The rotation is
// in place and keeps that order. Source: Su et al., "RoFormer" (arXiv 2104.09864); YaRN: Peng et al. (arXiv
// 2309.00071); llama3: the Llama 3.1 release; formulas as transformers computes them, here in double, rounded once.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

enum class RopeStyle : std::uint8_t { interleaved, half_split };
enum class RopeScaling : std::uint8_t { none, yarn, llama3 };

struct RopeSettings {
  std::int64_t dim = 0;  ///< rotated elements of a head; even
  double theta = 10000.0;
  RopeStyle style = RopeStyle::half_split;

  RopeScaling scaling = RopeScaling::none;
  double factor = 1.0;                      ///< yarn, llama3: context length over the original one
  std::int64_t original_max_positions = 0;  ///< yarn, llama3: context length of pre-training
  double beta_fast = 32.0;                  ///< yarn: pairs turning more often than this keep their frequency
  double beta_slow = 1.0;                   ///< yarn: pairs turning less often than this are divided by factor
  double mscale = 0.0;                      ///< yarn: 0 = not given
  double mscale_all_dim = 0.0;              ///< yarn: 0 = not given
  double low_freq_factor = 1.0;             ///< llama3
  double high_freq_factor = 4.0;            ///< llama3
};

/// Radians per position of each pair: [dim / 2].
std::vector<double> rope_frequencies(const RopeSettings& settings);

/// What the table's cosines and sines are multiplied with: 1, or under YaRN m(mscale) / m(mscale_all_dim), or
/// m(1) where the two are not given; m(x) = 0.1 x ln(factor) + 1.
double rope_table_scale(const RopeSettings& settings);

/// What DeepSeek's attention multiplies qk_dim^-0.5 with: m(mscale_all_dim)^2 under YaRN, otherwise 1.
double rope_attention_scale(const RopeSettings& settings);

/// Cosines and sines, [max_positions, dim / 2], f32 (f64 for f64 runs).
struct RopeTable {
  Tensor cosines;
  Tensor sines;
  RopeStyle style = RopeStyle::half_split;

  std::int64_t max_positions() const { return cosines.shape()[0]; }
  std::int64_t dim() const { return cosines.shape()[1] * 2; }
};

/// Throws Error(bug) where the settings contradict themselves.
RopeTable make_rope_table(const RopeSettings& settings, std::int64_t max_positions, DType dtype = DType::f32);

/// Rotates x in place; with `inverse` by the transposed rotation, which is the gradient.
/// A position outside the table is an Error(bug) that names the token.
struct RopeArgs {
  TensorView x;               ///< [tokens, heads, table.dim()] f64 | f32 | bf16; strided, last dim contiguous
  ConstTensorView positions;  ///< [tokens] i32
  const RopeTable& table;     ///< f64 for f64, otherwise f32
  bool inverse = false;
  Stream& stream;
};
void rope(const RopeArgs& args);

// The table, for tests and benchmarks, and the rows that live in other files.
std::span<const Variant<RopeArgs>> rope_variants();
namespace rotary::simd {
std::string refuses(const RopeArgs& args);
void rotate(const RopeArgs& args);
}  // namespace rotary::simd
namespace rotary::cuda {
std::string refuses(const RopeArgs& args);
void rotate(const RopeArgs& args);
}  // namespace rotary::cuda

}  // namespace shoestring
