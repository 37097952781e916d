// The shipped demo recipe (latent attention, experts, multi-token prediction, FP8 products), killed again and again.
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "core/budget/ledger_history.h"
#include "kernels/base/random.h"
#include "tests/tools/program.h"

namespace shoestring {
namespace {

using testing::after;
using testing::Ended;
using testing::read_text;
using testing::Workplace;

constexpr int kKills = 10;
constexpr const char* kTokens = "--schedule.horizon=tokens --phase.pretrain.tokens=20000";

std::string tiny_moe(const std::string& name, const std::string& horizon) {
  return std::string("train " SHOESTRING_SOURCE_DIR "/recipes/tiny_moe.recipe --data.train=shards/train") +
         " --data.validation=shards/validation " + horizon +
         " --phase.pretrain.sequence=128 --phase.pretrain.micro_batch=2 --phase.pretrain.global_batch=4" +
         " --checkpoint.every_steps=2 --evaluation.tokens=2000 --run.name=" + name;
}

TEST(Kill, TenKillsLeaveTheSameBitsAndATrueBill) {
  const Workplace place;
  const Ended undisturbed = place.run(tiny_moe("undisturbed", kTokens));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.output;

  // At most a fourteenth of the whole run each time: ten kills find it unfinished, also where the hour gets better.
  const Random random(11, Purpose::test);
  double wall_seconds = 0;
  for (int kill = 0; kill < kKills; ++kill) {
    const double moment = undisturbed.seconds / 14 * random.uniform(static_cast<std::uint64_t>(kill));
    const Ended ended = place.interrupt("killed", tiny_moe("killed", kTokens), SIGKILL, after(moment));
    ASSERT_EQ(ended.exit_code, 128 + SIGKILL) << ended.output;
    wall_seconds += ended.seconds;
  }
  const Ended last = place.run(tiny_moe("killed", kTokens));
  ASSERT_EQ(last.exit_code, 0) << last.output;
  wall_seconds += last.seconds;

  EXPECT_EQ(place.result("killed"), place.result("undisturbed"));
  const nlohmann::json report = nlohmann::json::parse(read_text(place.run_folder("killed") / "report.json"));
  double charged = 0;
  for (const auto& [category, hours] : report["categories"].items()) charged += 3600 * hours.get<double>();
  EXPECT_NEAR(charged, wall_seconds, 0.01 * wall_seconds);
  EXPECT_NEAR(charged, 3600 * report["budget"]["spent_gpu_hours"].get<double>(), 1e-6 * charged);
  EXPECT_LE(report["budget"]["spent_gpu_hours"].get<double>(), report["budget"]["cap_gpu_hours"].get<double>());
  RecordProperty("wall_seconds", std::to_string(wall_seconds));
  RecordProperty("charged_seconds", std::to_string(charged));
}

// Against a cap instead: what the kills cost is paid from the same budget.
TEST(Kill, TheCapHoldsOverAllAttempts) {
  const Workplace place;
  const std::string capped = tiny_moe("capped", "--schedule.horizon=budget --budget.gpu_hours=0.003");
  const Random random(12, Purpose::test);
  int kills = 0;
  for (int kill = 0; kill < 4; ++kill) {
    const double moment = 1.2 * random.uniform(static_cast<std::uint64_t>(kill));
    const auto last_step = [&] { return read_ledger(place.run_folder("capped")).attempts.back().last().step; };
    const Ended ended = place.interrupt("capped", capped, SIGKILL, [&] {
      while (kill == 0 && last_step() == 0) after(0.01)();  // one kill at least loses steps
      after(moment)();
    });
    kills += ended.exit_code == 128 + SIGKILL;
  }
  EXPECT_EQ(kills, 4);
  ASSERT_EQ(place.run(capped).exit_code, 0);
  const nlohmann::json report = nlohmann::json::parse(read_text(place.run_folder("capped") / "report.json"));
  EXPECT_LE(report["budget"]["spent_gpu_hours"].get<double>(), 0.003);
  EXPECT_GT(report["categories"]["lost"].get<double>(), 0);
}

}  // namespace
}  // namespace shoestring
