#include "kernels/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/random.h"
#include "kernels/base/workers.h"
#include "kernels/quantize_tile.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using testing::Fenced;
using testing::same_bits;

/// Everything one call reads and writes; outputs are fenced by NaN.
struct Case {
  DType input = DType::f32;
  DType payload = DType::e4m3;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  Granularity row_tiles = kRowTile128;  ///< rows = -1: no row output
  Granularity column_tiles = {-1, -1};  ///< rows = -1: no column output
  ScaleKind kind = ScaleKind::f32;
  std::vector<std::int64_t> segments{};
  bool transposed_columns = false;
  std::int64_t padding = 0;

  std::string to_string() const {
    return fmt::format("{} -> {} [{}, {}] rows {}x{} columns {}x{} kind {} segments {} transposed {} padding {}",
                       name(input), name(payload), rows, columns, row_tiles.rows, row_tiles.columns, column_tiles.rows,
                       column_tiles.columns, static_cast<int>(kind), segments.size(), transposed_columns, padding);
  }
};

class Outputs {
 public:
  explicit Outputs(const Case& c)
      : rows_(values(c, false)),
        rows_scales_(scales(c, c.row_tiles)),
        columns_(values(c, c.transposed_columns)),
        columns_scales_(scales(c, c.column_tiles)),
        case_(c) {}

  ScaledView row_tiles() const {
    return case_.row_tiles.rows < 0 ? ScaledView{} : ScaledView{rows_, rows_scales_, case_.row_tiles};
  }
  ScaledView column_tiles() const {
    if (case_.column_tiles.rows < 0) return {};
    const TensorView view = columns_;
    return {case_.transposed_columns ? view.transposed() : view, columns_scales_, case_.column_tiles};
  }
  void expect_equal(const Outputs& other) const {
    if (case_.row_tiles.rows >= 0) {
      EXPECT_TRUE(same_bits(rows_, other.rows_));
      EXPECT_TRUE(same_bits(rows_scales_, other.rows_scales_));
    }
    if (case_.column_tiles.rows >= 0) {
      EXPECT_TRUE(same_bits(columns_, other.columns_));
      EXPECT_TRUE(same_bits(columns_scales_, other.columns_scales_));
    }
    for (const Fenced* fenced : {&rows_, &rows_scales_, &columns_, &columns_scales_}) EXPECT_TRUE(fenced->intact());
  }

 private:
  static Fenced values(const Case& c, bool transposed) {
    const Shape shape = transposed ? Shape{c.columns, c.rows} : Shape{c.rows, c.columns};
    return Fenced(c.payload, shape, c.padding);
  }
  static Fenced scales(const Case& c, Granularity granularity) {
    const DType dtype = c.kind == ScaleKind::e8m0 ? DType::e8m0 : DType::f32;
    if (granularity.rows < 0) return Fenced(dtype, {1, 1});
    return Fenced(dtype, tile_scales_shape(c.rows, c.columns, granularity, c.segments));
  }
  Fenced rows_;
  Fenced rows_scales_;
  Fenced columns_;
  Fenced columns_scales_;
  Case case_;
};

QuantizeArgs arguments(const Case& c, ConstTensorView x, const Outputs& outputs, QuantizeCounts* counts,
                       Stream& stream) {
  return {.x = x,
          .row_tiles = outputs.row_tiles(),
          .column_tiles = outputs.column_tiles(),
          .scale_kind = c.kind,
          .segments = c.segments,
          .counts = counts,
          .stream = stream};
}

const Variant<QuantizeArgs>& reference() { return quantize_variants().back(); }

void expect_counts(const QuantizeCounts& a, const QuantizeCounts& b) {
  EXPECT_EQ(a.elements, b.elements);
  EXPECT_EQ(a.saturated, b.saturated);
  EXPECT_EQ(a.underflowed, b.underflowed);
  EXPECT_EQ(a.non_finite, b.non_finite);
  EXPECT_EQ(a.amax, b.amax);
}

/// Every row of the table against the reference: values, scales, counts, fences.
void expect_variants_agree(const Case& c, ConstTensorView x) {
  SCOPED_TRACE(c.to_string());
  Workers one(1);
  Workers three(3);
  Stream single(one);
  Stream stream(three);
  Outputs expected(c);
  QuantizeCounts expected_counts;
  reference().run(arguments(c, x, expected, &expected_counts, single));
  for (const Variant<QuantizeArgs>& row : quantize_variants()) {
    SCOPED_TRACE(row.name);
    Outputs actual(c);
    Outputs uncounted(c);
    QuantizeCounts counts;
    const QuantizeArgs args = arguments(c, x, actual, &counts, stream);
    if (!testing::runs(row, args)) continue;
    row.run(args);
    actual.expect_equal(expected);
    expect_counts(counts, expected_counts);
    row.run(arguments(c, x, uncounted, nullptr, single));
    uncounted.expect_equal(expected);
  }
}

/// Heavy tails over many binades, a stretch of zeros, and tiny values that underflow.
Tensor tricky(DType dtype, std::int64_t rows, std::int64_t columns, bool non_finite) {
  Tensor x = testing::heavy_tailed(dtype, {rows, columns}, 5);
  const Random random(3, Purpose::test);
  for (std::int64_t i = 0; i < x.view().elements(); ++i) {
    const std::uint64_t draw = random.below(static_cast<std::uint64_t>(i), 97);
    if (draw == 0) testing::set_value(x, i, testing::value_at(x, i) * 1e-9);
    if (draw == 1 || (i / 128) % 11 == 4) testing::set_value(x, i, draw % 2 == 0 ? 0.0 : -0.0);
    if (non_finite && draw == 2 && i % 3 == 0) testing::set_value(x, i, std::numeric_limits<double>::quiet_NaN());
    if (non_finite && draw == 3 && i % 5 == 0) testing::set_value(x, i, i % 2 == 0 ? HUGE_VAL : -HUGE_VAL);
  }
  return x;
}

constexpr Granularity kNone{-1, -1};

TEST(Quantize, VariantsAgreeOnEveryGranularity) {
  const std::vector<std::pair<Granularity, Granularity>> outputs = {
      {kRowTile128, kNone},         {kRowTile32, kNone},    {kPerTensor, kNone},           {kBlock128, kNone},
      {kNone, kColumnTile128},      {kNone, kColumnTile32}, {kRowTile128, kColumnTile128}, {kRowTile32, kColumnTile32},
      {kPerTensor, kColumnTile128}, {kBlock128, kBlock128}, {kBlock128, kColumnTile128},
  };
  const std::vector<std::pair<std::int64_t, std::int64_t>> shapes = {{1, 1}, {33, 128}, {129, 127}, {70, 530}};
  for (const auto& [rows, columns] : shapes) {
    for (const DType input : {DType::f32, DType::bf16}) {
      for (const bool non_finite : {false, true}) {
        const Tensor x = tricky(input, rows, columns, non_finite);
        for (const auto& [row_tiles, column_tiles] : outputs) {
          for (const ScaleKind kind : {ScaleKind::f32, ScaleKind::power_of_two, ScaleKind::e8m0}) {
            if (kind != ScaleKind::f32 && (non_finite || input == DType::bf16)) continue;
            const DType payload = kind == ScaleKind::power_of_two ? DType::e5m2 : DType::e4m3;
            expect_variants_agree({input, payload, rows, columns, row_tiles, column_tiles, kind}, x);
          }
        }
      }
    }
  }
}

TEST(Quantize, VariantsAgreeOnSegmentsStridesAndTransposedOutputs) {
  const std::int64_t rows = 300;
  const std::int64_t columns = 200;
  const Tensor wide = tricky(DType::f32, rows, columns + 56, false);
  const ConstTensorView x = wide.view().slice(1, 40, columns);
  const std::vector<std::int64_t> ragged = {0, 0, 1, 130, 130, 259, 300};
  for (const bool transposed : {false, true}) {
    for (const std::int64_t padding : {0, 3}) {
      for (const auto& segments : {std::vector<std::int64_t>{}, ragged}) {
        for (const Granularity tile : {kColumnTile128, kColumnTile32}) {
          expect_variants_agree({DType::f32, DType::e4m3, rows, columns, kRowTile128, tile, ScaleKind::f32, segments,
                                 transposed, padding},
                                x);
        }
        expect_variants_agree({DType::f32, DType::e4m3, rows, columns, kBlock128, kBlock128, ScaleKind::power_of_two,
                               segments, transposed, padding},
                              x);
      }
    }
  }
  EXPECT_EQ(tile_scales_shape(rows, columns, kColumnTile128, ragged), (Shape{6, 200}));
  EXPECT_EQ(tile_scales_shape(rows, columns, kRowTile128, ragged), (Shape{300, 2}));
}

/// Every value at which a rounding decision changes, and its neighbours, both signs: scale 1 by a leading maximum.
template <class Payload>
std::vector<float> decisions(int codes, float largest) {
  std::vector<float> values;
  for (int code = 0; code + 1 < codes; ++code) {
    Payload low;
    Payload high;
    low.bits = static_cast<std::uint8_t>(code);
    high.bits = static_cast<std::uint8_t>(code + 1);
    const float middle = (static_cast<float>(low) + static_cast<float>(high)) / 2;
    for (const float value :
         {static_cast<float>(low), std::nextafterf(middle, 0.0f), middle, std::nextafterf(middle, INFINITY)}) {
      values.push_back(value);
      values.push_back(-value);
    }
  }
  std::vector<float> rows;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (rows.size() % 128 == 0) rows.push_back(largest);
    rows.push_back(values[i]);
  }
  while (rows.size() % 128 != 0) rows.push_back(0.0f);
  return rows;
}

template <class Payload>
void expect_every_decision(DType dtype, int codes, float largest) {
  const std::vector<float> values = decisions<Payload>(codes, largest);
  const std::int64_t rows = static_cast<std::int64_t>(values.size()) / 128;
  Workers workers(1);
  Stream stream(workers);
  for (const Variant<QuantizeArgs>& row : quantize_variants()) {
    SCOPED_TRACE(row.name);
    Tensor codes_out(dtype, {rows, 128});
    Tensor scales(DType::f32, {rows, 1});
    const QuantizeArgs args{.x = view_of(values.data(), DType::f32, {rows, 128}),
                            .row_tiles = {codes_out, scales, kRowTile128},
                            .stream = stream};
    if (!testing::runs(row, args)) continue;
    row.run(args);
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(codes_out.as<std::uint8_t>()[i], Payload(values[i]).bits) << values[i];
    }
    for (std::int64_t r = 0; r < rows; ++r) EXPECT_EQ(scales.as<float>()[r], 1.0f);
  }
}

TEST(Quantize, EveryRoundingDecisionMatchesTheCast) {
  expect_every_decision<E4M3>(DType::e4m3, 0x7F, 448.0f);
  expect_every_decision<E5M2>(DType::e5m2, 0x7C, 57344.0f);
}

TEST(Quantize, ScalesAgreeOnEveryExponent) {  // one column = one tile: many amax patterns, subnormals included
  const std::int64_t columns = 1 << 15;
  Tensor x(DType::f32, {1, columns});
  const Random random(11, Purpose::test);
  for (std::int64_t c = 0; c < columns; ++c) {
    std::uint32_t bits = static_cast<std::uint32_t>(random.u64(static_cast<std::uint64_t>(c)));
    if (c % 4 == 0) bits = (bits & 0xFF800000u) | 0x600000u | (bits & 1u);  // 1.75 * 2^e and the next single
    x.as<float>()[c] = dtype_bits::to_float(bits);
  }
  for (const ScaleKind kind : {ScaleKind::f32, ScaleKind::power_of_two, ScaleKind::e8m0}) {
    for (const DType payload : {DType::e4m3, DType::e5m2}) {
      expect_variants_agree({DType::f32, payload, 1, columns, kNone, kColumnTile128, kind}, x);
    }
  }
}

TEST(Quantize, PowerOfTwoScalesRoundUp) {
  using quantize_tile::scale_of;
  for (int exponent = -100; exponent <= 100; ++exponent) {
    const float exact = std::ldexp(448.0f, exponent);
    const float power = std::ldexp(1.0f, exponent);
    const auto scale = [](float amax) {
      return scale_of(dtype_bits::of_float(amax), ScaleKind::power_of_two, quantize_tile::kE4M3);
    };
    EXPECT_EQ(scale(exact).scale, power);
    EXPECT_EQ(scale(exact).inverse, 1 / power);
    EXPECT_EQ(scale(std::nextafterf(exact, 0.0f)).scale, power);
    EXPECT_EQ(scale(std::nextafterf(exact, INFINITY)).scale, 2 * power);
    EXPECT_EQ(scale(std::ldexp(225.0f, exponent)).scale, power);
    EXPECT_EQ(scale(std::ldexp(224.0f, exponent)).scale, power / 2);
  }
  EXPECT_EQ(scale_of(0, ScaleKind::e8m0, quantize_tile::kE4M3).scale, 1.0f);
  EXPECT_EQ(scale_of(1, ScaleKind::f32, quantize_tile::kE4M3).scale, 0x1p-126f);
  EXPECT_EQ(scale_of(1, ScaleKind::power_of_two, quantize_tile::kE4M3).scale, 0x1p-126f);
}

TEST(Quantize, OnlineScalesNeverSaturateFiniteValues) {
  Workers workers(2);
  Stream stream(workers);
  for (const ScaleKind kind : {ScaleKind::f32, ScaleKind::power_of_two}) {
    const Tensor x = testing::heavy_tailed(DType::f32, {64, 512}, 9);
    Tensor codes(DType::e4m3, {64, 512});
    Tensor scales(DType::f32, {64, 4});
    QuantizeCounts counts;
    quantize(
        {.x = x, .row_tiles = {codes, scales, kRowTile128}, .scale_kind = kind, .counts = &counts, .stream = stream});
    EXPECT_EQ(counts.saturated, 0);
    EXPECT_EQ(counts.elements, 64 * 512);
    EXPECT_GT(counts.amax, 1.0f);
  }
}

TEST(Quantize, GivenScalesSaturateAndAreCounted) {
  Workers workers(2);
  Stream stream(workers);
  for (const DType input : {DType::f32, DType::bf16}) {
    const Tensor x = tricky(input, 130, 300, true);
    for (const auto& [tile, shape] : {std::pair{kPerTensor, Shape{1, 1}}, std::pair{kRowTile128, Shape{130, 3}},
                                      std::pair{kBlock128, Shape{2, 3}}}) {
      Tensor expected(DType::e4m3, {130, 300});
      Tensor scales(DType::f32, shape);
      testing::fill_constant(scales, 0.01);
      QuantizeCounts expected_counts;
      QuantizeArgs args{.x = x,
                        .row_tiles = {expected, scales, tile},
                        .scales_given = true,
                        .counts = &expected_counts,
                        .stream = stream};
      reference().run(args);
      EXPECT_GT(expected_counts.saturated, 100);
      EXPECT_GT(expected_counts.underflowed, 100);
      EXPECT_GT(expected_counts.non_finite, 10);
      for (const Variant<QuantizeArgs>& row : quantize_variants()) {
        SCOPED_TRACE(row.name);
        Tensor actual(DType::e4m3, {130, 300});
        QuantizeCounts counts;
        args.row_tiles.values = actual;
        args.counts = &counts;
        if (!testing::runs(row, args)) continue;
        row.run(args);
        EXPECT_TRUE(same_bits(actual, expected));
        expect_counts(counts, expected_counts);
        EXPECT_EQ(scales.as<float>()[0], 0.01f);
      }
    }
  }
}

TEST(Quantize, SpecialValues) {
  Workers workers(1);
  Stream stream(workers);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x = {nan, -nan, INFINITY, -INFINITY, 0.0f, -0.0f, 448.0f, 1.0f};
  for (const Variant<QuantizeArgs>& row : quantize_variants()) {
    Tensor codes(DType::e4m3, {1, 8});
    Tensor scales(DType::f32, {1, 1});
    QuantizeCounts counts;
    const QuantizeArgs args{.x = view_of(x.data(), DType::f32, {1, 8}),
                            .row_tiles = {codes, scales, kRowTile128},
                            .counts = &counts,
                            .stream = stream};
    if (!testing::runs(row, args)) continue;
    row.run(args);
    const std::vector<std::uint8_t> expected = {0x7F, 0xFF, 0x7E, 0xFE, 0x00, 0x80, 0x7E, 0x38};
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(codes.as<std::uint8_t>()[i], expected[i]) << i;
    EXPECT_EQ(scales.as<float>()[0], 1.0f);
    expect_counts(counts, {8, 2, 0, 4, 448.0f});
  }
}

TEST(Quantize, EmptyInputsAndBrokenContracts) {
  Workers workers(1);
  Stream stream(workers);
  Tensor codes(DType::e4m3, {4, 128});
  Tensor scales(DType::f32, {4, 1});
  Tensor x(DType::f32, {4, 128});
  quantize({.x = x.view().slice(0, 0, 0), .stream = stream});
  EXPECT_THROW(quantize({.x = x, .stream = stream}), Error);
  EXPECT_THROW(quantize({.x = codes, .row_tiles = {codes, scales, kRowTile128}, .stream = stream}), Error);
  EXPECT_THROW(quantize({.x = x, .row_tiles = {codes, scales, kRowTile32}, .stream = stream}), Error);
  EXPECT_THROW(
      quantize({.x = x, .row_tiles = {codes, scales, kRowTile128}, .scale_kind = ScaleKind::e8m0, .stream = stream}),
      Error);
  const std::vector<std::int64_t> short_of_rows = {0, 3};
  EXPECT_THROW(
      quantize({.x = x, .row_tiles = {codes, scales, kRowTile128}, .segments = short_of_rows, .stream = stream}),
      Error);
}

}  // namespace
}  // namespace shoestring
