// What `shoestring verify` says of layouts that are sound, and that it sees what goes wrong most often.
#include "core/training/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <system_error>
#include <thread>

#include "core/training/signals.h"
#include "kernels/base/check.h"
#include "tests/core/model/small_models.h"

namespace shoestring {
namespace {

Recipe recipe_of(Architecture architecture) {
  Recipe recipe;
  recipe.model = testing::small_spec(architecture);
  recipe.model.bias_speed = 0.25;
  recipe.precision.policy = PrecisionPolicy::fp32;
  recipe.schedule.learning_rate = 1e-2;
  return recipe;
}

const VerifiedLayout kShared{.shape = {.data = 2, .expert = 2}};
const VerifiedLayout kFolded{.shape = {.data = 2, .pipeline = 2, .expert = 2}, .schedule = ScheduleName::zb_v};
const VerifiedLayout kSharedState{.shape = {.data = 2}, .shares_state = true};
const VerifiedLayout kAllShared{.shape = {.data = 4, .expert = 2}, .shares_state = true};

/// What differs after one step on two ranks that share experts, or another layout.
std::string difference(const Tampering& tampering, const VerifiedLayout& layout = kShared) {
  return verify_layouts(recipe_of(Architecture::deepseek_v3), 1, {layout}, *self_communicator(), {}, tampering)
      .front()
      .difference;
}

TEST(Verify, RunsEveryScheduleAndEveryWayToShareExperts) {
  const auto count = [](Architecture architecture, int ranks, const auto& wanted) {
    const std::vector<VerifiedLayout> all = layouts_to_verify(recipe_of(architecture), ranks);
    return std::count_if(all.begin(), all.end(), wanted);
  };
  const auto any = [](const VerifiedLayout&) { return true; };
  const auto shares = [](const VerifiedLayout& layout) { return layout.shape.expert > 1; };
  const auto shares_state = [](const VerifiedLayout& layout) { return layout.shares_state; };
  EXPECT_EQ(count(Architecture::llama, 8, shares_state), 2 + 2 + 1);
  EXPECT_EQ(count(Architecture::llama, 8, any), 2 + 5 * 3 + 5 * 2 + 5);
  EXPECT_EQ(count(Architecture::llama, 8, shares), 0);
  EXPECT_EQ(count(Architecture::deepseek_v3, 8, shares), 3 + 5 * 3 + 5 * 1 + 3 + 3 + 1);
  EXPECT_EQ(count(Architecture::deepseek_v3, 2, any), 2 + 5 + 2);
}

// What stands in for a large recipe has all of its kinds of parts, and in what it is less is said.
TEST(Verify, SaysWhatItTrains) {
  Recipe recipe = recipe_of(Architecture::deepseek_v3);
  recipe.run.name = "large";
  recipe.model.layers = 61;
  recipe.model.hidden = 7168;
  recipe.model.dense_layers = 3;
  recipe.model.experts = 256;
  recipe.model.experts_per_token = 8;
  recipe.model.shared_experts = 1;
  recipe.model.expert_groups = 8;
  recipe.model.mtp_layers = 1;
  EXPECT_EQ(small_twin_text(recipe),
            "large in small: deepseek_v3, 8 layers of 128 (1 dense), 16 experts in 4 groups, 4 a token and 1 shared, 1 "
            "for multi-token prediction; fp32; adamw");
  recipe = recipe_of(Architecture::llama);
  recipe.run.name = "dense";
  recipe.optimizer.name = OptimizerName::muon;
  EXPECT_EQ(small_twin_text(recipe), "dense in small: llama, 8 layers of 128; fp32; muon with 1 of 5 iterations");
}

TEST(Verify, SoundLayoutsAreEqual) {
  int told = 0;
  for (const VerifiedLayout& layout :
       verify_layouts(recipe_of(Architecture::deepseek_v3), 2, {kShared, kFolded, kSharedState, kAllShared},
                      *self_communicator(), [&](const VerifiedLayout&) { ++told; })) {
    EXPECT_EQ(layout.difference, "");
  }
  EXPECT_EQ(told, 4);
}

TEST(Verify, ARequestToLeaveIsObeyedBeforeTheNextLayout) {
  int told = 0;
  try {
    verify_layouts(recipe_of(Architecture::llama), 1, {kSharedState, kSharedState}, *self_communicator(),
                   [&](const VerifiedLayout&) {
                     ++told;
                     request_stop(true);
                   });
    ADD_FAILURE() << "it went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::preempted);
    EXPECT_NE(std::string(error.what()).find("after 1 of 2 layouts"), std::string::npos) << error.what();
  }
  request_stop(false);
  EXPECT_EQ(told, 1);
}

// A layout of many steps, or of slow ones, is not gone through to its end.
TEST(Verify, ARequestToLeaveIsObeyedBeforeTheNextStep) {
  constexpr int kSteps = 50;
  std::atomic<int> steps = 0;  // of both ranks
  const Tampering asked{.after_step = [&](const Layout&, const PassResult&, Transformer&) {
    ++steps;
    request_stop(true);
  }};
  EXPECT_THROW(verify_layouts(recipe_of(Architecture::llama), kSteps, {kSharedState}, *self_communicator(), {}, asked),
               Error);
  request_stop(false);
  EXPECT_EQ(steps, 2) << "one step of each";
}

TEST(Verify, AGradientOfExpertsScaledByTheirRanksIsSeen) {
  const auto scale = [](const Layout& layout, const PassResult&, Transformer& model) {
    for (Parameter* parameter : model.parameters()) {
      if (!parameter->of_experts()) continue;
      for (std::int64_t i = 0; i < parameter->elements(); ++i) {
        parameter->grad.as<float>()[i] /= static_cast<float>(layout.shape.expert);
      }
    }
  };
  EXPECT_NE(difference({.after_step = scale}).find("step 01 gradient model.layers.1.mlp.experts."), std::string::npos);
}

// Where ranks share the optimizer's state each looks at the gradients that it sums; together these are all.
TEST(Verify, AGradientThatOneRankOwnsIsSeen) {
  const auto damage = [](const Layout& layout, const PassResult&, Transformer& model) {
    if (layout.at.data != 1) return;
    for (Parameter* parameter : model.parameters()) {  // some are the other rank's, and nobody looks at them here
      if (!parameter->grad.empty()) parameter->grad.as<float>()[0] += 1;
    }
  };
  EXPECT_NE(difference({.after_step = damage}, kSharedState).find("step 01 gradient "), std::string::npos);
}

TEST(Verify, ADroppedMicroBatchIsSeen) {
  EXPECT_NE(difference({.wrong_sample = 5}).find("step 01"), std::string::npos);
}

// Moved twice by the loads of a step, as by those of each half.
TEST(Verify, ABiasMovedMoreThanOnceAStepIsSeen) {
  const auto again = [](const Layout&, const PassResult& batch, Transformer& model) {
    model.update_router_biases(batch.router_counts, 0.25);
  };
  EXPECT_NE(difference({.after_step = again}).find("e_score_correction_bias"), std::string::npos);
}

// Those begun are waited for: a thread that nobody joins would end the process.
TEST(Verify, ARankWhoseThreadCannotBeMadeEndsTheOthers) {
  for (int made = 0; made < 4; ++made) {
    int left = made;
    std::atomic<int> alive{0};
    const ThreadMaker scarce = [&](std::function<void()> body) {
      if (left-- == 0) throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
      ++alive;
      return std::thread([&alive, body = std::move(body)] {
        body();
        --alive;
      });
    };
    try {
      difference({.make = scarce}, kFolded);
      ADD_FAILURE() << "four ranks of " << made;
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_EQ(error.code(), ExitCode::io);
      for (const std::string& part :
           {"each of 4 ranks, only for " + std::to_string(made), std::string("--ranks"), std::string("ulimit -u")}) {
        EXPECT_NE(text.find(part), std::string::npos) << text;
      }
    }
    EXPECT_EQ(alive, 0);
  }
}

}  // namespace
}  // namespace shoestring
