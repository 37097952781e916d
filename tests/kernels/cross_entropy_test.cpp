#include "kernels/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"
#include "tests/support/recorded_bits.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using namespace testing;

DType statistic(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

struct Problem {
  Tensor padded, targets;
  std::int64_t rows, vocabulary;

  Problem(DType dtype, std::int64_t row_count, std::int64_t columns)
      : padded(normal(dtype, {row_count, columns + 3}, 1, 3.0)),
        targets(DType::i32, {row_count}),
        rows(row_count),
        vocabulary(columns) {
    fill_integers(targets, 2, 0, columns);
    for (std::int64_t row = 2; row < rows; row += 5) targets.as<std::int32_t>()[row] = -1;
    targets.as<std::int32_t>()[0] = static_cast<std::int32_t>(columns - 1);
  }
  TensorView logits() { return padded.view().slice(1, 0, vocabulary); }
};

struct Results {
  Tensor loss, lse, dlogits, loss_sum, count;
};

Results empty_results(const Problem& p, DType dtype, DType gradient) {
  return {Tensor(statistic(dtype), {p.rows}), Tensor(statistic(dtype), {p.rows}),
          Tensor(gradient, {p.rows, p.vocabulary}), Tensor(DType::f64, {1}), Tensor(DType::i64, {1})};
}

/// The formulas in double.
Results solve(Problem& p, double scale) {
  Results r = empty_results(p, DType::f64, DType::f64);
  for (std::int64_t row = 0; row < p.rows; ++row) {
    double total = 0;
    for (std::int64_t j = 0; j < p.vocabulary; ++j) total += std::exp(value_at(p.logits(), row * p.vocabulary + j));
    const double lse = std::log(total);
    r.lse.as<double>()[row] = lse;
    const std::int32_t target = p.targets.as<std::int32_t>()[row];
    if (target < 0) continue;
    r.loss.as<double>()[row] = lse - value_at(p.logits(), row * p.vocabulary + target);
    r.loss_sum.as<double>()[0] += r.loss.as<double>()[row];
    r.count.as<std::int64_t>()[0] += 1;
    for (std::int64_t j = 0; j < p.vocabulary; ++j) {
      const double probability = std::exp(value_at(p.logits(), row * p.vocabulary + j) - lse);
      r.dlogits.as<double>()[row * p.vocabulary + j] = scale * (probability - (j == target ? 1.0 : 0.0));
    }
  }
  return r;
}

/// Loss and lse are of the size of the logits (up to 12 here); a probability inherits the absolute error of its lse.
::testing::AssertionResult agrees(const Results& actual, const Results& expected, std::int64_t vocabulary) {
  const DType stat = actual.loss.dtype();
  const double lse_error = sum_error(vocabulary, stat) + 64 * unit_roundoff(stat);
  Bound bound = rounding_bound(stat, stat, 4);
  bound.absolute = lse_error;
  bound.allow_zeros = true;
  if (const auto result = within(actual.lse, expected.lse, bound); !result) return result;
  if (const auto result = within(actual.loss, expected.loss, bound); !result) return result;
  Bound gradient = rounding_bound(actual.dlogits.dtype(), stat, 8);
  gradient.relative += lse_error;
  gradient.absolute = 1e-30;
  gradient.allow_zeros = true;
  if (const auto result = within(actual.dlogits, expected.dlogits, gradient); !result) return result;
  const double sum = value_at(expected.loss_sum, 0);
  if (std::abs(value_at(actual.loss_sum, 0) - sum) > sum * lse_error) {
    return ::testing::AssertionFailure() << "loss_sum " << value_at(actual.loss_sum, 0) << ", expected " << sum;
  }
  if (value_at(actual.count, 0) != value_at(expected.count, 0)) {
    return ::testing::AssertionFailure() << "count " << value_at(actual.count, 0);
  }
  return ::testing::AssertionSuccess();
}

struct Formats {
  DType logits, gradient;
};
constexpr Formats kFormats[] = {
    {DType::f64, DType::f64}, {DType::f32, DType::f32}, {DType::f32, DType::bf16}, {DType::bf16, DType::bf16}};

template <class Check>
void for_each(Check&& check_case) {
  for (const Formats formats : kFormats) {
    for (const std::int64_t vocabulary : {1, 15, 16, 17, 33, 1000}) {
      SCOPED_TRACE(fmt::format("{} {} vocabulary {}", name(formats.logits), name(formats.gradient), vocabulary));
      check_case(formats, vocabulary);
    }
  }
}

void run_op(const Variant<CrossEntropyArgs>& variant, Problem& p, Results& r, double scale, Stream& stream) {
  pin_variant("cross_entropy", variant.name);
  cross_entropy({r.loss, r.lse, r.loss_sum, r.count, r.dlogits, p.logits(), p.targets, scale, stream});
  pin_variant("cross_entropy", "");
}

bool serves(std::string_view variant, DType dtype) { return variant == "reference" || dtype != DType::f64; }

TEST(CrossEntropy, RowsAgreeWithTheFormula) {
  Workers workers(2);
  Stream stream(workers);
  for_each([&](Formats formats, std::int64_t vocabulary) {
    Problem problem(formats.logits, 9, vocabulary);
    const Results expected = solve(problem, 0.25);
    for (const Variant<CrossEntropyArgs>& variant : cross_entropy_variants()) {
      SCOPED_TRACE(std::string(variant.name));
      Results results = empty_results(problem, formats.logits, formats.gradient);
      const CrossEntropyArgs args{results.loss,    results.lse,      results.loss_sum, results.count,
                                  results.dlogits, problem.logits(), problem.targets,  0.25,
                                  stream};
      if (!testing::runs(variant, args)) continue;
      run_op(variant, problem, results, 0.25, stream);
      EXPECT_TRUE(agrees(results, expected, vocabulary));
    }
  });
}

TEST(CrossEntropy, InPlaceAndWithoutGradientAreTheSame) {
  Workers workers(2);
  Stream stream(workers);
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (const Variant<CrossEntropyArgs>& variant : cross_entropy_variants()) {
      if (!serves(variant.name, dtype)) continue;
      Problem problem(dtype, 9, 100);
      Results apart = empty_results(problem, dtype, dtype);
      const CrossEntropyArgs probe{apart.loss,       apart.lse,       {},  {},    apart.dlogits,
                                   problem.logits(), problem.targets, 1.0, stream};
      if (!testing::runs(variant, probe)) continue;
      variant.run(probe);
      Results evaluated = empty_results(problem, dtype, dtype);
      variant.run({evaluated.loss, {}, {}, {}, {}, problem.logits(), problem.targets, 1.0, stream});
      EXPECT_TRUE(same_bits(evaluated.loss, apart.loss));
      variant.run(
          {evaluated.loss, evaluated.lse, {}, {}, problem.logits(), problem.logits(), problem.targets, 1.0, stream});
      EXPECT_TRUE(same_bits(evaluated.loss, apart.loss) && same_bits(evaluated.lse, apart.lse));
      EXPECT_TRUE(same_bits(problem.logits(), apart.dlogits));
    }
  }
}

// bf16 gradients in the front half of each row of f32 logits.
TEST(CrossEntropy, NarrowerInPlaceIsTheSame) {
  constexpr std::int64_t kRows = 9, kVocabulary = 100;
  Workers workers(2);
  Stream stream(workers);
  for (const Variant<CrossEntropyArgs>& variant : cross_entropy_variants()) {
    Problem problem(DType::f32, kRows, kVocabulary);
    Results apart = empty_results(problem, DType::f32, DType::bf16);
    const CrossEntropyArgs probe{apart.loss,       apart.lse,       {},  {},    apart.dlogits,
                                 problem.logits(), problem.targets, 1.0, stream};
    if (!testing::runs(variant, probe)) continue;
    run_op(variant, problem, apart, 1.0, stream);
    TensorView inside = problem.logits();
    inside.dtype = DType::bf16;
    inside.strides[0] *= 2;
    pin_variant("cross_entropy", variant.name);
    cross_entropy({apart.loss, apart.lse, {}, {}, inside, problem.logits(), problem.targets, 1.0, stream});
    pin_variant("cross_entropy", "");
    for (std::int64_t row = 0; row < kRows; ++row) {
      const auto* expected = apart.dlogits.as<BFloat16>() + row * kVocabulary;
      const auto* actual = inside.as<BFloat16>() + row * inside.strides[0];
      EXPECT_EQ(std::memcmp(actual, expected, kVocabulary * sizeof(BFloat16)), 0) << variant.name << " row " << row;
    }
  }
}

// A row's weight is a factor on its own gradient, and on its loss where losses are summed. Every row of the tables.
TEST(CrossEntropy, RowsHaveWeights) {
  Workers workers(2);
  Stream stream(workers);
  for_each([&](Formats formats, std::int64_t vocabulary) {
    Problem problem(formats.logits, 9, vocabulary);
    Tensor weights(DType::f32, {9});
    for (int row = 0; row < 9; ++row) weights.as<float>()[row] = 0.25F * static_cast<float>(row - 3);
    Tensor weight_sum(DType::f64, {1});
    for (const Variant<CrossEntropyArgs>& variant : cross_entropy_variants()) {
      SCOPED_TRACE(std::string(variant.name));
      Results weighted = empty_results(problem, formats.logits, formats.gradient);
      weight_sum.as<double>()[0] = 0;
      const CrossEntropyArgs args{weighted.loss,    weighted.lse,     weighted.loss_sum, weighted.count,
                                  weighted.dlogits, problem.logits(), problem.targets,   0.5,
                                  stream,           weights,          weight_sum};
      if (!testing::runs(variant, args)) continue;
      pin_variant("cross_entropy", variant.name);
      cross_entropy(args);
      pin_variant("cross_entropy", "");
      double loss = 0, sum = 0;
      for (std::int64_t row = 0; row < 9; ++row) {
        const double weight = static_cast<double>(weights.as<float>()[row]);
        Results alone = empty_results(problem, formats.logits, formats.gradient);
        run_op(variant, problem, alone, 0.5 * weight, stream);
        EXPECT_TRUE(same_bits(weighted.dlogits.view().slice(0, row, 1), alone.dlogits.view().slice(0, row, 1)));
        EXPECT_TRUE(same_bits(weighted.loss.view().slice(0, row, 1), alone.loss.view().slice(0, row, 1)));
        if (problem.targets.as<std::int32_t>()[row] < 0) continue;
        loss += weight * value_at(alone.loss, row);
        sum += weight;
      }
      EXPECT_EQ(value_at(weighted.loss_sum, 0), loss);
      EXPECT_EQ(value_at(weight_sum, 0), sum);
    }
  });
}

// Weights of 1 change no bit; of the chunked form neither.
TEST(CrossEntropy, EqualWeightsAreNone) {
  Workers workers(1);
  Stream stream(workers);
  Problem problem(DType::f32, 9, 100);
  Tensor ones(DType::f32, {9}), halves(DType::f32, {9}), lse(DType::f32, {9});
  fill_constant(ones, 1);
  fill_constant(halves, 0.5);
  Results plain = empty_results(problem, DType::f32, DType::f32);
  Results weighted = empty_results(problem, DType::f32, DType::f32);
  cross_entropy({plain.loss, lse, plain.loss_sum, {}, plain.dlogits, problem.logits(), problem.targets, 0.5, stream});
  cross_entropy({weighted.loss,
                 {},
                 weighted.loss_sum,
                 {},
                 weighted.dlogits,
                 problem.logits(),
                 problem.targets,
                 0.5,
                 stream,
                 ones});
  EXPECT_TRUE(same_bits(plain.dlogits, weighted.dlogits));
  EXPECT_TRUE(same_bits(plain.loss_sum, weighted.loss_sum));
  for (const Variant<CrossEntropyChunkGradientArgs>& variant : cross_entropy_chunk_gradient_variants()) {
    const CrossEntropyChunkGradientArgs args{
        weighted.dlogits, problem.logits(), lse, problem.targets, 0, 1.0, stream, halves};
    const CrossEntropyChunkGradientArgs half{plain.dlogits, problem.logits(), lse, problem.targets, 0, 0.5, stream};
    if (!testing::runs(variant, args)) continue;
    variant.run(args);
    variant.run(half);
    EXPECT_TRUE(same_bits(plain.dlogits, weighted.dlogits)) << variant.name;
  }
}

TEST(CrossEntropy, BoundsSeeDamage) {
  Workers workers(1);
  Stream stream(workers);
  for (const Formats formats : kFormats) {
    Problem problem(formats.logits, 9, 200);
    Results results = empty_results(problem, formats.logits, formats.gradient);
    cross_entropy({results.loss, results.lse, results.loss_sum, results.count, results.dlogits, problem.logits(),
                   problem.targets, 0.25, stream});
    EXPECT_TRUE(agrees(results, solve(problem, 0.25), 200));
    EXPECT_FALSE(agrees(results, solve(problem, 0.255), 200));  // a scale 2% off
    Problem moved(formats.logits, 9, 200);
    moved.targets.as<std::int32_t>()[4] += 1;
    EXPECT_FALSE(agrees(results, solve(moved, 0.25), 200));
    Problem trained(formats.logits, 9, 200);
    trained.targets.as<std::int32_t>()[2] = 0;  // was ignored
    EXPECT_FALSE(agrees(results, solve(trained, 0.25), 200));
  }
}

TEST(CrossEntropy, ChunksAgreeWithTheFormula) {
  Workers workers(2);
  Stream stream(workers);
  for_each([&](Formats formats, std::int64_t vocabulary) {
    Problem problem(formats.logits, 9, vocabulary);
    const Results expected = solve(problem, 0.25);
    for (const std::int64_t width : {7, 64, 2000}) {
      for (std::size_t row = 0; row < cross_entropy_chunk_variants().size(); ++row) {
        const auto& fold = cross_entropy_chunk_variants()[row];
        const auto& differentiate = cross_entropy_chunk_gradient_variants()[row];
        if (!serves(fold.name, formats.logits)) continue;
        SCOPED_TRACE(fmt::format("{} width {}", fold.name, width));
        Results results = empty_results(problem, formats.logits, formats.gradient);
        Tensor highest(statistic(formats.logits), {9});
        Tensor sum(statistic(formats.logits), {9});
        Tensor target(statistic(formats.logits), {9});
        cross_entropy_begin(highest, sum, target, stream);
        const auto chunk = [&](TensorView view, std::int64_t first) {
          return view.slice(1, first, std::min(width, vocabulary - first));
        };
        const auto args = [&](std::int64_t first) {
          return CrossEntropyChunkArgs{highest,         sum,   target, chunk(problem.logits(), first),
                                       problem.targets, first, stream};
        };
        if (!testing::runs(fold, args(0))) continue;
        for (std::int64_t first = 0; first < vocabulary; first += width) fold.run(args(first));
        cross_entropy_finish({results.lse, results.loss, results.loss_sum, results.count, highest, sum, target,
                              problem.targets, vocabulary, stream});
        for (std::int64_t first = 0; first < vocabulary; first += width) {
          const CrossEntropyChunkGradientArgs gradient{chunk(results.dlogits, first),
                                                       chunk(problem.logits(), first),
                                                       results.lse,
                                                       problem.targets,
                                                       first,
                                                       0.25,
                                                       stream};
          ASSERT_TRUE(testing::runs(differentiate, gradient));
          differentiate.run(gradient);
        }
        EXPECT_TRUE(agrees(results, expected, vocabulary));
      }
    }
  });
}

TEST(CrossEntropy, WorkersDoNotMatter) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (const Variant<CrossEntropyArgs>& variant : cross_entropy_variants()) {
      if (!serves(variant.name, dtype)) continue;
      Problem problem(dtype, 33, 100);
      Results first = empty_results(problem, dtype, dtype);
      for (const int count : {1, 2, 3}) {
        Workers workers(count);
        Stream stream(workers);
        Results results = empty_results(problem, dtype, dtype);
        const CrossEntropyArgs args{results.loss,     results.lse,     {},  {},    results.dlogits,
                                    problem.logits(), problem.targets, 1.0, stream};
        if (!testing::runs(variant, args)) continue;
        run_op(variant, problem, results, 1.0, stream);
        if (count == 1) {
          first = std::move(results);
          continue;
        }
        EXPECT_TRUE(same_bits(results.loss, first.loss) && same_bits(results.dlogits, first.dlogits));
        EXPECT_TRUE(same_bits(results.loss_sum, first.loss_sum));
      }
    }
  }
}

/// Rows and, after them, chunks of 64 of the same logits.
std::uint64_t hash_of_row(std::string_view variant, Formats formats, Stream& stream) {
  Problem problem(formats.logits, 9, 197);
  fill_uniform(problem.padded, 3, -9, 9);
  Results whole = empty_results(problem, formats.logits, formats.gradient);
  Results chunked = empty_results(problem, formats.logits, formats.gradient);
  Tensor highest(DType::f32, {9}), sum(DType::f32, {9}), target(DType::f32, {9});
  for (const char* op : {"cross_entropy", "cross_entropy_chunk", "cross_entropy_chunk_gradient"}) {
    pin_variant(op, variant);
  }
  cross_entropy({whole.loss, whole.lse, whole.loss_sum, whole.count, whole.dlogits, problem.logits(), problem.targets,
                 0.3, stream});
  cross_entropy_begin(highest, sum, target, stream);
  const auto part = [&](TensorView view, std::int64_t first) {
    return view.slice(1, first, std::min<std::int64_t>(64, problem.vocabulary - first));
  };
  for (std::int64_t first = 0; first < problem.vocabulary; first += 64) {
    cross_entropy_chunk({highest, sum, target, part(problem.logits(), first), problem.targets, first, stream});
  }
  cross_entropy_finish({chunked.lse, chunked.loss, chunked.loss_sum, chunked.count, highest, sum, target,
                        problem.targets, problem.vocabulary, stream});
  for (std::int64_t first = 0; first < problem.vocabulary; first += 64) {
    cross_entropy_chunk_gradient({part(chunked.dlogits, first), part(problem.logits(), first), chunked.lse,
                                  problem.targets, first, 0.3, stream});
  }
  for (const char* op : {"cross_entropy", "cross_entropy_chunk", "cross_entropy_chunk_gradient"}) pin_variant(op, "");
  return hash_of({whole.loss, whole.lse, whole.dlogits, chunked.loss, chunked.lse, chunked.dlogits});
}

// Recorded on AVX2.
TEST(CrossEntropy, VectorsGiveTheRecordedBits) {
  if (!cpu_features().vectors()) GTEST_SKIP() << "the processor has no vectors that rows are written for";
  Workers workers(2);
  Stream stream(workers);
  EXPECT_EQ(hash_of_row("simd", {DType::f32, DType::f32}, stream), 0x1498FB15063F3102u);
  EXPECT_EQ(hash_of_row("simd", {DType::f32, DType::bf16}, stream), 0xB574AE6380E5D3DBu);
  EXPECT_EQ(hash_of_row("simd", {DType::bf16, DType::bf16}, stream), 0xDC72017D27780745u);
}

TEST(CrossEntropy, GradientMatchesCentralDifferences) {
  Workers workers(1);
  Stream stream(workers);
  Problem problem(DType::f64, 6, 9);
  Results results = empty_results(problem, DType::f64, DType::f64);
  const auto loss = [&] {
    Tensor sum(DType::f64, {1});
    cross_entropy({results.loss, {}, sum, {}, {}, problem.logits(), problem.targets, 1.0, stream});
    return 0.5 * value_at(sum, 0);
  };
  cross_entropy({results.loss, {}, {}, {}, results.dlogits, problem.logits(), problem.targets, 0.5, stream});
  EXPECT_TRUE(gradient_matches(loss, problem.logits(), results.dlogits));
}

TEST(CrossEntropy, HugeLogitsStayFinite) {
  Workers workers(1);
  Stream stream(workers);
  for (const Variant<CrossEntropyArgs>& variant : cross_entropy_variants()) {
    Problem problem(DType::f32, 9, 50);
    for (std::int64_t i = 0; i < 9 * 50; ++i) {
      set_value(problem.logits(), i, value_at(problem.logits(), i) * 1e4);
    }
    Results results = empty_results(problem, DType::f32, DType::f32);
    const CrossEntropyArgs args{results.loss,     results.lse,     {},  {},    results.dlogits,
                                problem.logits(), problem.targets, 1.0, stream};
    if (!testing::runs(variant, args)) continue;
    variant.run(args);
    for (std::int64_t i = 0; i < 9 * 50; ++i) ASSERT_TRUE(std::isfinite(value_at(results.dlogits, i)));
    for (std::int64_t i = 0; i < 9; ++i) ASSERT_TRUE(std::isfinite(value_at(results.loss, i)));
  }
}

TEST(CrossEntropy, NamesTheRowWithABadTarget) {
  Workers workers(1);
  Stream stream(workers);
  Problem problem(DType::f32, 9, 50);
  Results results = empty_results(problem, DType::f32, DType::f32);
  for (const std::int32_t wrong : {-2, 50}) {
    problem.targets.as<std::int32_t>()[6] = wrong;
    try {
      cross_entropy({results.loss, {}, {}, {}, {}, problem.logits(), problem.targets, 1.0, stream});
      FAIL() << "no error for target " << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_NE(std::string(error.what()).find(fmt::format("row 6 has target {}", wrong)), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace shoestring
