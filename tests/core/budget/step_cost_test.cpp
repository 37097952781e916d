#include "core/budget/step_cost.h"

#include <gtest/gtest.h>

#include "core/model/accounting.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

/// Multiplies at 100 TFLOP/s whatever the shape; memory and links so fast that nothing else counts.
Hardware plain_hardware() {
  Hardware hardware;
  hardware.name = "plain";
  hardware.peak_flops[RateFormat::bf16] = 1e14;
  hardware.memory_bytes_per_second = 1e18;
  hardware.devices_per_node = 8;
  hardware.peer_bytes_per_second = 1e18;
  hardware.network_bytes_per_second = 1e18;
  return hardware;
}

constexpr Stack kPlain = {.name = "plain", .source = "test"};

StepQuestion llama(int devices) {
  StepQuestion question;
  ModelSpec spec;
  spec.vocabulary = 32000;
  spec.layers = 15;
  spec.hidden = 1024;
  spec.heads = 8;
  spec.feed_forward = 2816;
  question.model.config = resolve_model(spec, 0, 2048);
  question.sequence = 2048;
  question.layout.devices = devices;
  question.layout.micro_batches = 16;
  return question;
}

TEST(StepCost, CountsWhatTheAccountingCounts) {
  const StepQuestion question = llama(1);
  const StepEstimate step = estimate_step(question, plain_hardware(), kPlain);
  const double tokens = 16 * 2048;
  EXPECT_DOUBLE_EQ(step.tokens, tokens);
  const double flops = count_flops(question.model.config, question.precision, 2048).training();
  EXPECT_NEAR(step.flops / tokens / flops, 1, 1e-9);
  const auto counts = count_parameters(question.model.config);
  EXPECT_NEAR(step.parameters / static_cast<double>(counts.total), 1, 1e-3);  // norms have no products
  // The attention core's backward pass has five products where two are counted per forward one.
  const double slower = (step.flops + 0.5 / 3 * step.attention_flops) / 1e14;
  EXPECT_NEAR(step.seconds.total() / slower, 1, 1e-3);
}

TEST(StepCost, APipelineWaitsAsItsScheduleDoes) {
  StepQuestion question = llama(4);
  question.layout.pipeline = 4;
  question.layout.schedule = ScheduleName::one_f_one_b;
  const StepParts one = estimate_step(question, plain_hardware(), kPlain).seconds;
  EXPECT_GT(one.bubble, 0);
  question.layout.schedule = ScheduleName::zb_h1;
  const StepParts zero = estimate_step(question, plain_hardware(), kPlain).seconds;
  EXPECT_LT(zero.total(), one.total());
  EXPECT_NEAR(zero.compute, one.compute, 1e-9 * one.compute);
  // Long runs are drawn out from shorter ones: twice the micro-batches add exactly as many again.
  question.layout.schedule = ScheduleName::one_f_one_b;
  const auto at = [&](int micro_batches) {
    question.layout.micro_batches = micro_batches;
    return estimate_step(question, plain_hardware(), kPlain).seconds.total();
  };
  const double drawn = at(64) - at(48);
  EXPECT_NEAR(drawn / (at(32) - at(16)), 1, 0.01);
}

TEST(StepCost, RecomputationIsAForwardPassMoreAndSavesMemory) {
  StepQuestion question = llama(1);
  const StepEstimate kept = estimate_step(question, plain_hardware(), kPlain);
  question.layout.recompute = Recompute::full;
  const StepEstimate again = estimate_step(question, plain_hardware(), kPlain);
  EXPECT_GT(again.seconds.recompute, 0.25 * kept.seconds.compute);
  EXPECT_LT(again.seconds.recompute, 0.34 * kept.seconds.compute);
  EXPECT_LT(again.memory.activations, 0.2 * kept.memory.activations);
}

TEST(StepCost, ShardsTakeTheirShareOfMemoryAndOfTheLinks) {
  Hardware slow = plain_hardware();
  slow.network_bytes_per_second = 1e9;
  StepQuestion question = llama(16);
  question.layout.sharding = Sharding::none;
  const StepEstimate whole = estimate_step(question, slow, kPlain);
  question.layout.sharding = Sharding::full;
  const StepEstimate shards = estimate_step(question, slow, kPlain);
  EXPECT_NEAR(shards.memory.moments * 16, whole.memory.moments, 1e-6 * whole.memory.moments);
  EXPECT_GT(shards.seconds.data, 0);
  EXPECT_GT(shards.seconds.data, estimate_step(question, plain_hardware(), kPlain).seconds.data);
}

TEST(StepCost, TensorParallelismPaysItsMessages) {
  Hardware slow = plain_hardware();
  slow.peer_bytes_per_second = 1e11;
  StepQuestion question = llama(8);
  question.layout.tensor = 8;
  const StepEstimate cut = estimate_step(question, slow, kPlain);
  // 4 all-reduces of 2 x 7/8 of the activations a layer, a quarter more backward, over three quarters of the link.
  const double bytes = 2048.0 * 1024 * 2;
  const double expected = 16 * 15 * (2 + 2.5) * 2 * bytes * 7 / 8 / 0.75e11;
  EXPECT_NEAR(cut.seconds.tensor / expected, 1, 1e-6);
}

StepQuestion mixture(int devices) {
  StepQuestion question = llama(devices);
  ModelConfig& config = question.model.config;
  config.experts = 8;
  config.experts_per_token = 2;
  config.expert_feed_forward = 1408;
  return question;
}

// The host's launches are waited for where the device would be quicker, and hardly where it is slower by far.
TEST(StepCost, AMixturesLayerWaitsForItsLaunches) {
  Stack launching = kPlain;
  const StepQuestion question = mixture(1);
  const double device = estimate_step(question, plain_hardware(), kPlain).seconds.total();
  const double layers = 15.0 * 16;
  launching.mixture_host_seconds = 100 * device / layers;
  const double host = estimate_step(question, plain_hardware(), launching).seconds.total();
  EXPECT_NEAR(host / (100 * device), 1, 0.02);
  launching.mixture_host_seconds = 0.1 * device / layers;
  EXPECT_LT(estimate_step(question, plain_hardware(), launching).seconds.total(), 1.01 * device);
  launching.mixture_host_seconds = 1;
  EXPECT_EQ(estimate_step(llama(1), plain_hardware(), launching).seconds.total(),
            estimate_step(llama(1), plain_hardware(), kPlain).seconds.total());
}

TEST(StepCost, TokensAreDispatchedInTheFormatOfTheSoftware) {
  Hardware slow = plain_hardware();
  slow.peak_flops[RateFormat::fp8] = 1e14;
  slow.peer_bytes_per_second = 1e10;
  StepQuestion question = mixture(8);
  question.layout.expert = 8;
  question.precision.policy = PrecisionPolicy::fp8_tensor;
  Stack stack = kPlain;
  const double fp8 = estimate_step(question, slow, stack).seconds.expert;
  stack.dispatches_fp8 = false;
  EXPECT_NEAR(estimate_step(question, slow, stack).seconds.expert / fp8, 4.0 / 3, 1e-9);  // 2 + 2 bytes over 1 + 2
}

// The gate's product is made again: less is kept, for a pass over memory.
TEST(StepCost, SelectiveRecomputationKeepsNoGate) {
  StepQuestion question = llama(1);
  const StepEstimate kept = estimate_step(question, plain_hardware(), kPlain);
  question.layout.recompute = Recompute::selective;
  const StepEstimate again = estimate_step(question, plain_hardware(), kPlain);
  EXPECT_NEAR(kept.memory.activations - again.memory.activations, 15 * 2048.0 * 2816 * 2, 1);
  EXPECT_LT(again.seconds.recompute, 0.02 * kept.seconds.compute);
}

TEST(StepCost, SequenceParallelismSharesWhatIsKept) {
  StepQuestion question = llama(8);
  question.layout.tensor = 8;
  const double shared = estimate_step(question, plain_hardware(), kPlain).memory.activations;
  question.layout.sequence_parallel = false;
  const double whole = estimate_step(question, plain_hardware(), kPlain).memory.activations;
  // Two residuals and the inputs of two products, [tokens, hidden] in BF16, seven eighths of them.
  EXPECT_NEAR(whole - shared, 15 * 4 * 2048.0 * 1024 * 2 * 7 / 8, 1);
}

TEST(StepCost, WhatCannotBeIsRefusedWithItsReason) {
  const auto reason = [](auto change) {
    StepQuestion question = llama(8);
    change(question.layout);
    return impossible(question);
  };
  EXPECT_EQ(reason([](PlanLayout&) {}), "");
  EXPECT_NE(reason([](PlanLayout& l) { l.tensor = 3; }).find("does not divide 8 devices"), std::string::npos);
  EXPECT_NE(reason([](PlanLayout& l) { l.expert = 2; }).find("mixture of experts"), std::string::npos);
  EXPECT_NE(reason([](PlanLayout& l) {
              l.devices = 32;
              l.pipeline = 32;
            }).find("32 stages, but 15 layers"),
            std::string::npos);
  EXPECT_NE(reason([](PlanLayout& l) {
              l.pipeline = 8;
              l.schedule = ScheduleName::dualpipev;
              l.micro_batches = 8;
            }).find("dualpipev"),
            std::string::npos);
  StepQuestion fp8 = llama(1);
  fp8.precision.policy = PrecisionPolicy::fp8_tensor;
  try {
    estimate_step(fp8, plain_hardware(), kPlain);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_recipe);
    EXPECT_NE(std::string(error.what()).find("flops.fp8_achievable"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace shoestring
