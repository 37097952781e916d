#include "kernels/router_load.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/base/workers.h"

namespace shoestring {
namespace {

TEST(RouterLoad, BalanceLossByHand) {
  Workers workers(2);
  Stream stream(workers);
  // Two tokens, two experts, k = 1, one sequence: both choose expert 0.
  Tensor indices(DType::i32, {2, 1}), scores(DType::f32, {2, 2}), starts(DType::i32, {2}), load(DType::f32, {1, 2});
  const float values[] = {0.8f, 0.2f, 0.3f, 0.1f};
  std::copy(values, values + 4, scores.as<float>());
  starts.as<std::int32_t>()[1] = 2;
  double loss = 100;  // added to
  router_balance_loss({.loss = view_of(&loss, DType::f64, {1}),
                       .load = load,
                       .indices = indices,
                       .scores = scores,
                       .sequence_starts = starts,
                       .alpha = 0.5f,
                       .stream = stream});
  EXPECT_EQ(load.as<float>()[0], 2.0f);  // E / (K T) * 2 = 2
  EXPECT_EQ(load.as<float>()[1], 0.0f);
  EXPECT_NEAR(loss - 100, 2 * 0.5 * 2 * (0.8 + 0.75) / 2, 1e-6);  // T alpha f_0 P_0
}

TEST(RouterLoad, CountsAndBias) {
  Workers workers(1);
  Stream stream(workers);
  Tensor counts(DType::i64, {4}), indices(DType::i32, {3, 2}), bias(DType::f32, {4});
  const std::int32_t chosen[] = {0, 1, 0, 2, 0, -1};
  std::copy(chosen, chosen + 6, indices.as<std::int32_t>());
  router_count_load(counts, indices, stream);
  router_count_load(counts, indices, stream);
  const std::int64_t expected[] = {6, 2, 2, 0};
  for (int e = 0; e < 4; ++e) EXPECT_EQ(counts.as<std::int64_t>()[e], expected[e]);
  router_update_bias(bias, counts, 0.001f, stream);
  const float moved[] = {-0.001f, 0.001f, 0.001f, 0.001f};  // mean 2.5
  for (int e = 0; e < 4; ++e) EXPECT_EQ(bias.as<float>()[e], moved[e]);
  counts.as<std::int64_t>()[3] = 2;  // mean 3, and expert 0 at 6, nobody at the mean
  counts.as<std::int64_t>()[0] = 2;
  router_update_bias(bias, counts, 0.001f, stream);  // balanced: nothing moves
  for (int e = 0; e < 4; ++e) EXPECT_EQ(bias.as<float>()[e], moved[e]);
  EXPECT_EQ(router_max_violation(counts), 0);
  counts.as<std::int64_t>()[1] = 10;
  EXPECT_EQ(router_max_violation(counts), 10 / 4.0 - 1);
}

}  // namespace
}  // namespace shoestring
