#include "kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <string>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using namespace testing;

RopeSettings settings_of(RopeStyle style, std::int64_t dim = 64) {
  RopeSettings settings;
  settings.dim = dim;
  settings.style = style;
  return settings;
}

RopeSettings yarn() {  // DeepSeek-V3's
  RopeSettings settings = settings_of(RopeStyle::interleaved);
  settings.scaling = RopeScaling::yarn;
  settings.factor = 40;
  settings.original_max_positions = 4096;
  settings.mscale = 1;
  settings.mscale_all_dim = 1;
  return settings;
}

RopeSettings llama3() {  // Llama 3.1's
  RopeSettings settings = settings_of(RopeStyle::half_split, 128);
  settings.theta = 500000;
  settings.scaling = RopeScaling::llama3;
  settings.factor = 8;
  settings.original_max_positions = 8192;
  return settings;
}

TEST(Rope, FrequenciesFallGeometrically) {
  const std::vector<double> frequencies = rope_frequencies(settings_of(RopeStyle::half_split));
  ASSERT_EQ(frequencies.size(), 32u);
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_NEAR(frequencies[i] * std::pow(10000.0, static_cast<double>(i) / 32), 1.0, 1e-14) << i;
  }
}

struct Figure {
  std::size_t pair;
  double frequency;
};

// Figures from transformers 5.23, which computes in float: inv_freq of its rope functions "yarn" and "llama3".
TEST(Rope, ScaledFrequenciesMatchTransformers) {
  const std::vector<double> stretched = rope_frequencies(yarn());
  for (const auto& [pair, frequency] :
       {Figure{0, 1.0},                                                         // turns often: kept
        Figure{10, 0.05623412877321243},                                        // where the ramp begins
        Figure{11, 0.039006926119327545},                                       //
        Figure{16, 0.005500000435858965},                                       //
        Figure{22, 0.00017782794020604342}, Figure{23, 3.333803397254087e-05},  // where it ends
        Figure{31, 3.3338035336782923e-06}}) {
    EXPECT_NEAR(stretched[pair] / frequency, 1.0, 5e-7) << pair;
  }
  const std::vector<double> longer = rope_frequencies(llama3());
  for (const auto& [pair, frequency] :
       {Figure{0, 1.0}, Figure{28, 0.0032114461064338684}, Figure{29, 0.0021665706299245358},
        Figure{30, 0.0013718936825171113}, Figure{32, 0.0005248460220173001}, Figure{34, 0.0001785077911335975},
        Figure{35, 9.556212171446532e-05}, Figure{63, 3.068925877869333e-07}}) {
    EXPECT_NEAR(longer[pair] / frequency, 1.0, 2e-6) << pair;
  }
}

TEST(Rope, YarnScalesTheTableOrTheScores) {
  const double magnitude = 0.1 * std::log(40.0) + 1;
  EXPECT_DOUBLE_EQ(rope_table_scale(yarn()), 1.0);
  EXPECT_DOUBLE_EQ(rope_attention_scale(yarn()), magnitude * magnitude);
  RopeSettings plain = yarn();
  plain.mscale = plain.mscale_all_dim = 0;
  EXPECT_DOUBLE_EQ(rope_table_scale(plain), magnitude);
  EXPECT_EQ(rope_attention_scale(plain), 1.0);
  EXPECT_EQ(rope_table_scale(llama3()), 1.0);
  EXPECT_EQ(rope_attention_scale(llama3()), 1.0);
}

struct Problem {
  Tensor fused;  // rotated heads lie behind other columns, as in a fused projection
  Tensor positions;

  Problem(DType dtype, std::int64_t tokens, std::int64_t heads, std::int64_t dim)
      : fused(normal(dtype, {tokens, heads, dim + 16}, 3)), positions(DType::i32, {tokens}) {
    fill_integers(positions, 4, 0, 300);
  }
  TensorView x() { return fused.view().slice(2, 16, fused.shape()[2] - 16); }
};

/// The rotation as multiplication by a complex number, in double, with the table's own cosines and sines.
Tensor rotated(ConstTensorView x, const Tensor& positions, const RopeTable& table, bool inverse) {
  Tensor result = cast(x, DType::f64);
  const std::int64_t dim = x.shape[2];
  for (std::int64_t row = 0; row < x.shape[0] * x.shape[1]; ++row) {
    const std::int64_t position = positions.as<std::int32_t>()[row / x.shape[1]];
    for (std::int64_t i = 0; i < dim / 2; ++i) {
      const std::int64_t a = row * dim + (table.style == RopeStyle::interleaved ? 2 * i : i);
      const std::int64_t b = a + (table.style == RopeStyle::interleaved ? 1 : dim / 2);
      std::complex<double> turn{value_at(table.cosines, position * dim / 2 + i),
                                value_at(table.sines, position * dim / 2 + i)};
      if (inverse) turn = std::conj(turn);
      const std::complex<double> value = std::complex<double>{value_at(x, a), value_at(x, b)} * turn;
      result.as<double>()[a] = value.real();
      result.as<double>()[b] = value.imag();
    }
  }
  return result;
}

TEST(Rope, VariantsAgreeWithComplexMultiplication) {
  Workers workers(2);
  Stream stream(workers);
  for (const RopeStyle style : {RopeStyle::interleaved, RopeStyle::half_split}) {
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      for (const std::int64_t dim : {2, 16, 32, 34, 48, 64, 128}) {
        const RopeTable table =
            make_rope_table(settings_of(style, dim), 300, dtype == DType::f64 ? DType::f64 : DType::f32);
        for (const bool inverse : {false, true}) {
          for (const Variant<RopeArgs>& variant : rope_variants()) {
            SCOPED_TRACE(fmt::format("{} {} dim {} inverse {}", variant.name, name(dtype), dim, inverse));
            Problem problem(dtype, 33, 3, dim);
            const Tensor before = copy(problem.fused);
            const RopeArgs args{problem.x(), problem.positions, table, inverse, stream};
            if (!testing::runs(variant, args)) continue;
            const Tensor expected = rotated(problem.x(), problem.positions, table, inverse);
            const Tensor opposite = rotated(problem.x(), problem.positions, table, !inverse);
            variant.run(args);
            // Three roundings of terms of the size of the pair, which |a| + |b| <= 2 max covers.
            Bound bound = rounding_bound(dtype, dtype == DType::f64 ? DType::f64 : DType::f32, 3);
            bound.absolute = 16 * unit_roundoff(dtype == DType::f64 ? DType::f64 : DType::f32);
            EXPECT_TRUE(within(problem.x(), expected, bound));
            EXPECT_FALSE(within(problem.x(), opposite, bound));
            EXPECT_TRUE(same_bits(problem.fused.view().slice(2, 0, 16), before.view().slice(2, 0, 16)));
          }
        }
      }
    }
  }
}

TEST(Rope, VariantsAndWorkersAgreeBitForBit) {
  for (const RopeStyle style : {RopeStyle::interleaved, RopeStyle::half_split}) {
    const RopeTable table = make_rope_table(settings_of(style, 48), 300);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      std::vector<Tensor> results;
      for (const int count : {1, 2, 3}) {
        Workers workers(count);
        Stream stream(workers);
        for (const Variant<RopeArgs>& variant : rope_variants()) {
          Problem problem(dtype, 70, 2, 48);
          const RopeArgs args{problem.x(), problem.positions, table, false, stream};
          if (!testing::runs(variant, args)) continue;
          variant.run(args);
          results.push_back(copy(problem.fused));
          EXPECT_TRUE(same_bits(results.back(), results.front())) << variant.name << " " << count;
        }
      }
    }
  }
}

TEST(Rope, InverseIsTheGradient) {
  Workers workers(1);
  Stream stream(workers);
  RopeSettings settings = yarn();
  settings.dim = 8;
  settings.mscale_all_dim = 0.5;  // so that the table is scaled, and the inverse is not the transpose's inverse
  const RopeTable table = make_rope_table(settings, 300, DType::f64);
  Problem problem(DType::f64, 5, 2, 8);
  const Tensor weights = normal(DType::f64, {5, 2, 8}, 9);
  const auto loss = [&] {
    Tensor x = copy(problem.x());
    rope({x, problem.positions, table, false, stream});
    return projection(x, weights);
  };
  Tensor gradient = copy(weights);
  rope({gradient, problem.positions, table, true, stream});
  EXPECT_TRUE(gradient_matches(loss, problem.x(), gradient));
}

// What RoPE is for: a score depends on the distance of two positions only.
TEST(Rope, ScoresDependOnDistanceOnly) {
  Workers workers(1);
  Stream stream(workers);
  const RopeTable table = make_rope_table(yarn(), 300, DType::f64);
  const auto score = [&](std::int32_t query, std::int32_t key) {
    Tensor pair = normal(DType::f64, {2, 1, 64}, 5);
    Tensor positions(DType::i32, {2});
    positions.as<std::int32_t>()[0] = query;
    positions.as<std::int32_t>()[1] = key;
    rope({pair, positions, table, false, stream});
    return projection(pair.view().slice(0, 0, 1), pair.view().slice(0, 1, 1));
  };
  EXPECT_NEAR(score(12, 5), score(212, 205), 1e-12);
  EXPECT_GT(std::abs(score(12, 5) - score(12, 6)), 1e-3);
}

TEST(Rope, RejectsPositionsOutsideTheTable) {
  Workers workers(1);
  Stream stream(workers);
  const RopeTable table = make_rope_table(settings_of(RopeStyle::half_split, 32), 10);
  Tensor x(DType::f32, {3, 1, 32});
  Tensor positions(DType::i32, {3});
  for (const std::int32_t wrong : {-1, 10}) {
    positions.as<std::int32_t>()[2] = wrong;
    EXPECT_THROW(rope({x, positions, table, false, stream}), Error);
  }
  RopeSettings odd = settings_of(RopeStyle::half_split, 31);
  EXPECT_THROW(make_rope_table(odd, 10), Error);
}

}  // namespace
}  // namespace shoestring
