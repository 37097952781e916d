#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"
#include "tests/kernels/attention_oracle.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"
#include "tests/support/recorded_bits.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using namespace testing;
using namespace testing::attention;

std::vector<Case> cases() {
  return {
      {{1}, 1, 1, 32, 32},
      {{1, 1, 2, 1}, 2, 1, 32, 32},
      {{31, 32, 33}, 2, 2, 64, 64},
      {{5, 3, 1, 7, 40, 9}, 2, 1, 24, 16},  // several documents in a tile, dims that fill no tile
      {{130, 64, 3}, 4, 2, 48, 32},
      {{161, 40}, 2, 1, 96, 64},
      {{70}, 2, 2, 192, 128},  // DeepSeek-V3's dims
  };
}

/// A probability inherits the error of its score and of the exponential's argument, in units of the largest score;
/// AMX rounds probabilities and dS to bf16. On top come the sums over keys or queries.
Bound bound(const Case& c, DType dtype, double largest_score) {
  const DType accumulator = dtype == DType::f64 ? DType::f64 : DType::f32;
  const double u = unit_roundoff(accumulator);
  const double probability = (sum_error(c.qk_dim, accumulator) + 4 * u) * (1 + largest_score) + 8 * u;
  const std::int64_t terms = c.tokens() * c.heads / c.kv_heads;
  Bound result = rounding_bound(dtype, accumulator, 4, terms + c.v_dim);
  result.absolute = probability + sum_error(terms, accumulator) + sum_error(c.v_dim, accumulator);
  if (dtype == DType::bf16) result.absolute += 1.01 * unit_roundoff(dtype);
  return result;
}

class Runner {
 public:
  explicit Runner(int workers = 2) : workers_(workers), stream_(workers_) {}

  AttentionArgs forward_args(Problem& p, TensorView o, TensorView lse) {
    return {o, lse, p.q(), p.k(), p.v(), p.segment_start, p.scale, scratch(p.shape), stream_};
  }
  AttentionBackwardArgs backward_args(Problem& p, Results& r, ConstTensorView o, ConstTensorView lse) {
    return {r.dq, r.dk, r.dv, p.d_o, p.q(), p.k(), p.v(), o, lse, p.segment_start, p.scale, scratch(p.shape), stream_};
  }
  Stream& stream() { return stream_; }

 private:
  Arena& scratch(const Case& c) {
    const std::int64_t longest = *std::max_element(c.documents.begin(), c.documents.end());
    arena_ =
        Arena(attention_scratch_bytes({c.tokens(), longest, c.heads, c.kv_heads, c.qk_dim, c.v_dim}, workers_.count()),
              Device{});
    return arena_;
  }
  Workers workers_;
  Stream stream_;
  Arena arena_;
};

::testing::AssertionResult forward_agrees(const Results& actual, const Oracle& oracle, const Case& c) {
  const Bound limit = bound(c, actual.o.dtype(), oracle.largest_score);
  if (const auto result = within(actual.o, oracle.value.o, limit, oracle.magnitude.o); !result) return result;
  Bound statistic = rounding_bound(actual.lse.dtype(), actual.lse.dtype(), 8);
  statistic.absolute = bound(c, actual.lse.dtype(), oracle.largest_score).absolute;
  statistic.allow_zeros = true;
  return within(actual.lse, oracle.value.lse, statistic);
}

::testing::AssertionResult backward_agrees(const Results& actual, const Oracle& oracle, const Case& c) {
  Bound limit = bound(c, actual.dq.dtype(), oracle.largest_score);
  if (const auto result = within(actual.dv, oracle.value.dv, limit, oracle.magnitude.dv); !result) return result;
  limit.allow_zeros = c.tokens() < 8;  // a document of one token has dS = 0
  if (const auto result = within(actual.dk, oracle.value.dk, limit, oracle.magnitude.dk); !result) return result;
  return within(actual.dq, oracle.value.dq, limit, oracle.magnitude.dq);
}

/// What the backward pass is given: the oracle's output, rounded as a forward pass would.
Results given_by(const Oracle& oracle, const Case& c, DType dtype) {
  Results results = empty_results(c, dtype);
  assign(results.o, oracle.value.o);
  assign(results.lse, oracle.value.lse);
  return results;
}

template <class Check>
void for_each_variant(Check&& check_variant) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (std::size_t row = 0; row < attention_forward_variants().size(); ++row) {
      SCOPED_TRACE(std::string(attention_forward_variants()[row].name) + " " + std::string(name(dtype)));
      check_variant(row, dtype);
    }
  }
}

template <class Check>
void for_each_problem(Check&& check_problem) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (const Case& c : cases()) {
      SCOPED_TRACE(c.to_string() + " " + std::string(name(dtype)));
      Problem problem(c, dtype);
      check_problem(problem, c, dtype);
    }
  }
}

TEST(Attention, ForwardAgreesWithTheFormula) {
  Runner runner;
  for_each_problem([&](Problem& problem, const Case& c, DType dtype) {
    const Oracle oracle = solve(problem);
    for (const Variant<AttentionArgs>& variant : attention_forward_variants()) {
      SCOPED_TRACE(std::string(variant.name));
      Fenced o(dtype, {c.tokens(), c.heads, c.v_dim}, 8);
      Fenced lse(dtype == DType::f64 ? DType::f64 : DType::f32, {c.heads, c.tokens()});
      const AttentionArgs args = runner.forward_args(problem, o, lse);
      if (!testing::runs(variant, args)) continue;
      variant.run(args);
      Results results;
      results.o = copy(o.view());
      results.lse = copy(lse.view());
      EXPECT_TRUE(forward_agrees(results, oracle, c));
      EXPECT_TRUE(o.intact() && lse.intact());
      EXPECT_EQ(args.scratch.used_bytes(), 0);
    }
  });
}

TEST(Attention, BackwardAgreesWithTheFormula) {
  Runner runner;
  for_each_problem([&](Problem& problem, const Case& c, DType dtype) {
    Results results = given_by(solve(problem), c, dtype);
    const Oracle oracle = solve(problem, results.o, results.lse);
    for (const Variant<AttentionBackwardArgs>& variant : attention_backward_variants()) {
      SCOPED_TRACE(std::string(variant.name));
      AttentionBackwardArgs args = runner.backward_args(problem, results, results.o, results.lse);
      Fenced dq(dtype, {c.tokens(), c.heads, c.qk_dim}, 8);
      Fenced dk(dtype, {c.tokens(), c.kv_heads, c.qk_dim}, 8);
      Fenced dv(dtype, {c.tokens(), c.kv_heads, c.v_dim}, 8);
      args.dq = dq;
      args.dk = dk;
      args.dv = dv;
      if (!testing::runs(variant, args)) continue;
      variant.run(args);
      results.dq = copy(dq.view());
      results.dk = copy(dk.view());
      results.dv = copy(dv.view());
      EXPECT_TRUE(backward_agrees(results, oracle, c));
      EXPECT_TRUE(dq.intact() && dk.intact() && dv.intact());
    }
  });
}

// The bounds above are worth something only if they see the usual faults.
TEST(Attention, BoundsSeeAShiftedMaskAndADroppedBoundary) {
  Runner runner;
  const Case c{{40, 33, 31}, 2, 1, 32, 32};
  const Case merged{{73, 31}, 2, 1, 32, 32};
  for_each_variant([&](std::size_t row, DType dtype) {
    Problem problem(c, dtype);
    Problem dropped(merged, dtype);
    Results results = given_by(solve(problem), c, dtype);
    const AttentionArgs forward = runner.forward_args(problem, results.o, results.lse);
    if (!testing::runs(attention_forward_variants()[row], forward)) return;
    attention_forward_variants()[row].run(forward);
    attention_backward_variants()[row].run(runner.backward_args(problem, results, results.o, results.lse));
    EXPECT_TRUE(forward_agrees(results, solve(problem), c));
    EXPECT_TRUE(backward_agrees(results, solve(problem, results.o, results.lse), c));
    for (const Oracle& damaged : {solve(problem, results.o, results.lse, 1), solve(problem, results.o, results.lse, -1),
                                  solve(dropped, results.o, results.lse)}) {
      EXPECT_FALSE(forward_agrees(results, damaged, c));
      EXPECT_FALSE(backward_agrees(results, damaged, c));
    }
  });
}

TEST(Attention, GradientsMatchCentralDifferences) {
  Runner runner(1);
  const Case c{{5, 1, 7}, 4, 2, 6, 4};
  Problem problem(c, DType::f64);
  Results results = empty_results(c, DType::f64);
  const auto loss = [&] {
    attention_forward(runner.forward_args(problem, results.o, results.lse));
    return projection(results.o, problem.d_o);
  };
  loss();
  attention_backward(runner.backward_args(problem, results, results.o, results.lse));
  const Results gradients{copy(results.o), copy(results.lse), copy(results.dq), copy(results.dk), copy(results.dv)};
  EXPECT_TRUE(gradient_matches(loss, problem.q(), gradients.dq));
  EXPECT_TRUE(gradient_matches(loss, problem.k(), gradients.dk));
  EXPECT_TRUE(gradient_matches(loss, problem.v(), gradients.dv));
}

Results run_all(std::size_t row, Problem& problem, DType dtype, int workers) {
  Runner runner(workers);
  Results results = empty_results(problem.shape, dtype);
  attention_forward_variants()[row].run(runner.forward_args(problem, results.o, results.lse));
  attention_backward_variants()[row].run(runner.backward_args(problem, results, results.o, results.lse));
  return results;
}

TEST(Attention, WorkersAndNeighboursDoNotMatter) {
  const Case c{{37, 70, 90}, 4, 2, 48, 32};
  const Case alone{{70}, 4, 2, 48, 32};
  Runner runner;
  for_each_variant([&](std::size_t row, DType dtype) {
    Problem problem(c, dtype);
    Results results = empty_results(c, dtype);
    if (!testing::runs(attention_forward_variants()[row], runner.forward_args(problem, results.o, results.lse))) return;
    results = run_all(row, problem, dtype, 1);
    Problem single(alone, dtype);
    assign(single.fused, problem.fused.view().slice(0, 37, 70));
    assign(single.d_o, problem.d_o.view().slice(0, 37, 70));
    const Results one = run_all(row, single, dtype, 2);
    for (const int workers : {2, 3}) {
      const Results again = run_all(row, problem, dtype, workers);
      EXPECT_TRUE(same_bits(again.o, results.o) && same_bits(again.lse, results.lse));
      EXPECT_TRUE(same_bits(again.dq, results.dq) && same_bits(again.dk, results.dk) &&
                  same_bits(again.dv, results.dv));
    }
    for (const auto& [part, whole] : {std::pair<const Tensor*, Tensor*>{&one.o, &results.o},
                                      {&one.dq, &results.dq},
                                      {&one.dk, &results.dk},
                                      {&one.dv, &results.dv}}) {
      EXPECT_TRUE(same_bits(*part, whole->view().slice(0, 37, 70)));
    }
  });
}

std::size_t row_named(std::string_view variant) {
  const auto rows = attention_forward_variants();
  return static_cast<std::size_t>(
      std::find_if(rows.begin(), rows.end(), [&](const auto& row) { return row.name == variant; }) - rows.begin());
}

/// Uniform inputs: unlike the normal ones they do not depend on a mathematical library.
std::uint64_t hash_of_simd(const Case& c, DType dtype) {
  Problem problem(c, dtype);
  fill_uniform(problem.fused, 5, -2, 2);
  fill_uniform(problem.d_o, 6, -1, 1);
  const Results results = run_all(row_named("simd"), problem, dtype, 2);
  return hash_of({results.o, results.lse, results.dq, results.dk, results.dv});
}

// Recorded on AVX2.
TEST(Attention, VectorsGiveTheRecordedBits) {
  if (!cpu_features().vectors()) GTEST_SKIP() << "the processor has no vectors that rows are written for";
  const Case grouped{{161, 1, 40, 64}, 4, 2, 96, 64};
  const Case small{{70, 5, 3}, 2, 1, 24, 16};
  EXPECT_EQ(hash_of_simd(grouped, DType::f32), 0x206397BB684CCE07u);
  EXPECT_EQ(hash_of_simd(grouped, DType::bf16), 0xE9D92DEFE143ECFCu);
  EXPECT_EQ(hash_of_simd(small, DType::f32), 0x9581EC12C6F7A18Du);
  EXPECT_EQ(hash_of_simd(small, DType::bf16), 0xCBF6C697DB71CC22u);
}

TEST(Attention, LargeScoresStayFinite) {
  Runner runner;
  const Case c{{100}, 2, 2, 64, 64};
  for_each_variant([&](std::size_t row, DType dtype) {
    Problem problem(c, dtype);
    problem.scale = 40.0;  // scores of some thousands: one key takes all
    Results results = empty_results(c, dtype);
    const AttentionArgs forward = runner.forward_args(problem, results.o, results.lse);
    if (!testing::runs(attention_forward_variants()[row], forward)) return;
    attention_forward_variants()[row].run(forward);
    attention_backward_variants()[row].run(runner.backward_args(problem, results, results.o, results.lse));
    for (const Tensor* tensor : {&results.o, &results.lse, &results.dq, &results.dk, &results.dv}) {
      for (std::int64_t i = 0; i < tensor->view().elements(); ++i) {
        ASSERT_TRUE(std::isfinite(value_at(*tensor, i))) << i;
      }
    }
  });
}

TEST(Attention, RejectsWhatTheContractForbids) {
  Runner runner;
  Problem problem({{4, 4}, 2, 1, 32, 32}, DType::f32);
  Results results = empty_results(problem.shape, DType::f32);
  problem.segment_start.as<std::int32_t>()[6] = 3;
  EXPECT_THROW(attention_forward(runner.forward_args(problem, results.o, results.lse)), Error);
  problem.segment_start.as<std::int32_t>()[6] = 4;
  attention_forward(runner.forward_args(problem, results.o, results.lse));
  for (const std::vector<std::int32_t>& starts :
       {std::vector<std::int32_t>{0, 4, 4, 8}, {0, 4}, {1, 8}, {0, 5, 4, 8}}) {
    AttentionArgs args = runner.forward_args(problem, results.o, results.lse);
    args.document_starts = starts;
    EXPECT_THROW(attention_forward(args), Error);
  }
  problem.scale = 0;
  EXPECT_THROW(attention_forward(runner.forward_args(problem, results.o, results.lse)), Error);
}

}  // namespace
}  // namespace shoestring
