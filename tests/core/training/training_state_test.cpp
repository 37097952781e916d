#include "core/training/training_state.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

TrainingState sample() {
  TrainingState state;
  state.step = 120;
  state.updates = 118;
  state.tokens = 123456789012;
  state.learned_tokens = 1234567890;
  state.phase = 1;
  state.phase_samples = 77;
  state.reduction_groups = 4;
  state.data_plan = "seed = 1\nsource = \"a\"\n";
  state.recipe = "[run]\n";
  state.loss = 0.1 + 0.2;
  state.decisions = {{.step = 3, .progress = 1.0 / 3, .end_step = 400, .end_progress = 1, .phase = 0}};
  state.guard.losses = {1.0 / 7, 2.0 / 7};
  state.guard.norms = {1e-300};
  state.guard.skipped = 2;
  state.guard.clipped = 77;
  state.guard.strange_in_row = 3;
  state.guard.broken_in_row = 2;
  state.guard.tried_return = true;
  state.guard.returns = 1;
  return state;
}

TEST(TrainingState, KeepsEveryBit) {
  const TrainingState state = sample();
  const TrainingState back = training_state_from_json(to_json(state), "x");
  EXPECT_EQ(to_json(back), to_json(state));
  EXPECT_EQ(back.tokens, state.tokens);
  EXPECT_EQ(back.learned_tokens, 1234567890);
  EXPECT_EQ(back.loss, state.loss);
  EXPECT_EQ(back.guard.losses, state.guard.losses);
  EXPECT_EQ(back.guard.norms[0], 1e-300);
  EXPECT_EQ(back.decisions[0].progress, 1.0 / 3);
  EXPECT_EQ(back.guard.clipped, 77);
  EXPECT_TRUE(back.guard.tried_return);
  EXPECT_EQ(back.guard.broken_in_row, 2);
}

// What earlier versions saved: their guard knew skipped steps only, and those may have been skipped for the weights.
TEST(TrainingState, ReadsItsFirstSchema) {
  nlohmann::json json = nlohmann::json::parse(to_json(sample()));
  json["schema"] = "shoestring.state/1";
  json["guard"] = {{"losses", {1.5, 2.5}}, {"norms", {0.5}}, {"skipped_in_row", 4}, {"skipped", 9}};
  const TrainingState state = training_state_from_json(json.dump(), "x");
  EXPECT_EQ(state.guard.losses.size(), 2u);
  EXPECT_EQ(state.guard.skipped, 9);
  EXPECT_EQ(state.guard.skipped_in_row, 4);
  EXPECT_EQ(state.guard.strange_in_row, 4);
  EXPECT_EQ(state.guard.clipped, 0);
}

TEST(TrainingState, ReadsWhatCountedLess) {
  nlohmann::json json = nlohmann::json::parse(to_json(sample()));
  json.erase("learned_tokens");
  json["guard"].erase("broken_in_row");
  EXPECT_EQ(training_state_from_json(json.dump(), "x").guard.broken_in_row, 0);
  EXPECT_EQ(training_state_from_json(json.dump(), "x").learned_tokens, 123456789012);
}

// The loss of a step that was skipped for it.
TEST(TrainingState, ALossThatIsNoNumberIsKept) {
  TrainingState state = sample();
  state.loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(training_state_from_json(to_json(state), "x").loss));
}

TEST(TrainingState, RefusesWhatIsNotOne) {
  const std::string sound = to_json(sample());
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = sound;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  for (const std::string& text :
       {std::string("{}"), std::string("["), changed("\"step\": 120", "\"step\": -1"),
        changed("\"step\": 120", "\"step\": \"120\""), changed("\"step\": 120", "\"step\": 9223372036854775807"),
        changed("\"phase\": 1", "\"phase\": 99999999999"), changed("state/2", "state/3"),
        changed("\"losses\"", "\"loses\"")}) {
    try {
      training_state_from_json(text, "here");
      ADD_FAILURE() << "accepted " << text.substr(0, 60);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::corrupt_checkpoint);
    }
  }
}

TEST(TrainingState, KnowsHowLongTheHeldOutLossIsStale) {
  TrainingState state = sample();
  EXPECT_FALSE(training_state_from_json(to_json(state), "x").best_held_out.has_value());
  state.best_held_out = 1.0 / 3;
  state.stale_evaluations = 2;
  state.best_step = 40;
  const TrainingState back = training_state_from_json(to_json(state), "x");
  EXPECT_EQ(back.best_held_out, state.best_held_out);
  EXPECT_EQ(back.stale_evaluations, 2);
  EXPECT_EQ(back.best_step, 40);
  state.best_held_out.reset();  // none of them was finite
  EXPECT_EQ(training_state_from_json(to_json(state), "x").stale_evaluations, 2);
  EXPECT_FALSE(training_state_from_json(to_json(state), "x").best_held_out.has_value());
}

TEST(TrainingState, KnowsTheCheckpointThatAStepWasTakenFrom) {
  TrainingState state = sample();
  EXPECT_EQ(training_state_from_json(to_json(state), "x").proven_step, -1);
  state.proven_step = 40;
  EXPECT_EQ(training_state_from_json(to_json(state), "x").proven_step, 40);
}

}  // namespace
}  // namespace shoestring
