// The shipped demo recipe (latent attention, experts, multi-token prediction, FP8 products) at half its width and
// depth, killed again and again.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>

#include "kernels/base/random.h"
#include "tests/tools/program.h"

namespace shoestring {
namespace {

using testing::after;
using testing::Ended;
using testing::read_text;
using testing::Workplace;

constexpr int kKills = 10;

std::string until(std::int64_t steps) {
  return "--schedule.horizon=steps --schedule.kind=constant --schedule.warmup_steps=0 --allow-recipe-change "
         "--phase.pretrain.steps=" +
         std::to_string(steps);
}

std::string tiny_moe(const std::string& name, const std::string& horizon) {
  return std::string("train " SHOESTRING_SOURCE_DIR "/recipes/tiny_moe.recipe --data.train=shards/train") +
         " --data.validation=shards/validation --kernels.allow_reference=yes " + horizon +
         " --model.layers=2 --model.hidden=128 --model.heads=2 --model.feed_forward=256 --model.experts=8" +
         " --phase.pretrain.sequence=128 --phase.pretrain.micro_batch=1 --phase.pretrain.global_batch=2" +
         " --checkpoint.every_steps=2 --evaluation.tokens=1000 --run.name=" + name;
}

// What starting a process and hearing of its end take by themselves: time that we see and no bill can hold.
double seconds_of_nothing(const Workplace& place) {
  double longest = 0;
  for (int i = 0; i < 5; ++i) longest = std::max(longest, place.run("", "exit 0;").seconds);
  return longest;
}

// A run that no machine brings to its end; then four steps more than are saved.
TEST(Kill, TenKillsLeaveTheSameBitsAndATrueBill) {
  const Workplace place;
  const Random random(11, Purpose::test);
  double wall_seconds = 0;
  for (int kill = 0; kill < kKills; ++kill) {
    const Ended ended = place.interrupt("killed", tiny_moe("killed", until(1000000)), SIGKILL, [&] {
      if (kill == 0) testing::wait_for_checkpoint(place, "killed");
      after(0.4 * random.uniform(static_cast<std::uint64_t>(kill)))();
    });
    ASSERT_EQ(ended.exit_code, 128 + SIGKILL) << ended.output;
    wall_seconds += ended.seconds;
  }
  const std::int64_t steps = testing::saved_step(place, "killed") + 4;
  const Ended last = place.run(tiny_moe("killed", until(steps)));
  ASSERT_EQ(last.exit_code, 0) << last.output;
  wall_seconds += last.seconds;
  const Ended undisturbed = place.run(tiny_moe("undisturbed", until(steps)));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.output;

  EXPECT_EQ(place.result("killed"), place.result("undisturbed"));
  const nlohmann::json report = nlohmann::json::parse(read_text(place.run_folder("killed") / "report.json"));
  double charged = 0;
  for (const auto& [category, hours] : report["categories"].items()) charged += 3600 * hours.get<double>();
  EXPECT_NEAR(charged, wall_seconds, 0.01 * wall_seconds + (kKills + 1) * seconds_of_nothing(place));
  EXPECT_NEAR(charged, 3600 * report["budget"]["spent_gpu_hours"].get<double>(), 1e-6 * charged);
  EXPECT_LE(report["budget"]["spent_gpu_hours"].get<double>(), report["budget"]["cap_gpu_hours"].get<double>());
  RecordProperty("wall_seconds", std::to_string(wall_seconds));
  RecordProperty("charged_seconds", std::to_string(charged));
}

// Against a cap instead: what the kills cost is paid from the same budget. They take about a quarter of it; where the
// hour gets worse meanwhile, more.
TEST(Kill, TheCapHoldsOverAllAttempts) {
  const Workplace place;
  const Ended probe =
      place.run(tiny_moe("probe", "--schedule.horizon=steps --schedule.warmup_steps=0 --phase.pretrain.steps=4"));
  ASSERT_EQ(probe.exit_code, 0) << probe.output;
  const double cap = 8 * probe.seconds / 3600;
  const std::string capped =
      tiny_moe("capped", "--schedule.horizon=budget --budget.gpu_hours=" + std::to_string(3600 * cap) + "s");
  const Random random(12, Purpose::test);
  for (int kill = 0; kill < 4; ++kill) {
    const Ended ended = place.interrupt("capped", capped, SIGKILL, [&] {
      if (kill == 0) testing::wait_for_step(place, "capped");  // one kill at least loses steps
      after(probe.seconds / 4 * random.uniform(static_cast<std::uint64_t>(kill)))();
    });
    ASSERT_EQ(ended.exit_code, 128 + SIGKILL) << ended.output;
  }
  ASSERT_EQ(place.run(capped).exit_code, 0);
  const nlohmann::json report = nlohmann::json::parse(read_text(place.run_folder("capped") / "report.json"));
  EXPECT_LE(testing::hours_of_steps(report), cap + testing::slowest_step_hours(place, "capped"));
  EXPECT_GT(report["categories"]["lost"].get<double>(), 0);
}

}  // namespace
}  // namespace shoestring
