// What the report of a run says of messages that nothing hid is what its trace shows, in virtual time: whole runs,
// whose messages take long and whose computations take a little for each reading of the clock.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/recipe/parse.h"
#include "core/training/trainer.h"
#include "tests/core/training/small_corpus.h"
#include "tests/support/delayed_communicator.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::DelayedCommunicator;
using testing::read_text;
using testing::TemporaryFolder;

constexpr int kFew = 4;  // steps
constexpr int kMany = 12;
constexpr const char* kWaits[] = {"bubble", "exposed_communication", "data_wait"};

constexpr const char* kRecipe = R"([run]
name = r
threads = 1
tensorboard = false
[budget]
gpu_hours = 10
[model]
architecture = deepseek_v3
layers = 4
hidden = 32
heads = 1
kv_lora_rank = 16
qk_nope_head_dim = 16
qk_rope_head_dim = 16
v_head_dim = 32
feed_forward = 32
dense_layers = 1
experts = 4
experts_per_token = 2
shared_experts = 1
expert_feed_forward = 32
init_std = 0.02
[precision]
policy = fp32
[parallel]
reduction_groups = 2
[schedule]
kind = constant
horizon = steps
learning_rate = 1e-3
[checkpoint]
every_minutes = 0
[phase.pretrain]
sequence = 16
micro_batch = 1
global_batch = 8
)";

/// Moved by messages, and by each reading: what happens in between takes that long.
class VirtualClock : public Clock {
 public:
  double monotonic_seconds() const override { return seconds += 0.001; }
  double unix_seconds() const override { return seconds; }
  double process_start() const override { return 0; }
  mutable double seconds = 0;
};

/// A bar of a time line.
struct Bar {
  std::string row, name;
  bool waits = false;
  double begin = 0, end = 0;
};

std::vector<Bar> bars_of(const json& trace) {
  std::map<std::pair<int, int>, std::string> rows;
  std::vector<Bar> bars;
  for (const json& entry : trace.at("traceEvents")) {
    const std::pair<int, int> at{entry.at("pid"), entry.at("tid")};
    if (entry.at("name") == "thread_name") rows[at] = entry.at("args").at("name");
    if (entry.at("ph") != "X") continue;
    const double begin = entry.at("ts").get<double>() / 1e6;
    bars.push_back({.row = rows.at(at),
                    .name = entry.at("name"),
                    .waits = entry.at("cat") == "wait",
                    .begin = begin,
                    .end = begin + entry.at("dur").get<double>() / 1e6});
  }
  return bars;
}

/// Of all ranks, by category.
using Seconds = std::map<std::string, double>;

/// What a run left of itself.
struct Traced {
  Seconds report;
  std::vector<Bar> trace;

  Seconds waits() const {
    Seconds seconds;
    for (const Bar& bar : trace) {
      if (bar.waits) seconds[bar.name] += bar.end - bar.begin;
    }
    return seconds;
  }
};

class Exposed : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    testing::build_small_corpus(folder_->path());
    testing::write_text(*folder_ / "r.recipe",
                        fmt::format("{}[data]\ntrain = {}\n", kRecipe, (*folder_ / "shards/train").string()));
  }
  static void TearDownTestSuite() { folder_.reset(); }

  /// `steps` steps on ranks whose messages take a quarter of a second; all but the first are traced.
  static Traced train(int ranks, const std::string& axes, int steps) {
    const fs::path folder = *folder_ / "runs" / fmt::format("{} {}", axes, steps);
    std::vector<std::string> overrides = {"--run.directory=" + folder.string(),
                                          fmt::format("--run.trace={}", steps - 1),
                                          fmt::format("--phase.pretrain.steps={}", steps)};
    std::istringstream words(axes);
    for (std::string word; words >> word;) overrides.push_back(word);
    TrainerOptions options;
    static std::FILE* const nowhere = std::fopen("/dev/null", "w");
    options.out = nowhere;
    testing::run_ranks(ranks, [&](Communicator& world) {
      VirtualClock clock;
      DelayedCommunicator delayed(world, clock.seconds, 0.25);
      EXPECT_EQ(Trainer(parse_recipe(*folder_ / "r.recipe", overrides).recipe, delayed, clock, options).run(),
                ExitCode::done);
    });
    Traced run;
    run.trace = bars_of(json::parse(read_text(folder / "trace.json")));
    const json report = json::parse(read_text(folder / "report.json"));
    for (const auto& [category, hours] : report.at("categories").items()) {
      run.report[category] = hours.get<double>() * 3600;
    }
    return run;
  }

  static std::unique_ptr<TemporaryFolder> folder_;
};
std::unique_ptr<TemporaryFolder> Exposed::folder_;

struct Axes {
  int ranks;
  const char* overrides;
};
const Axes kAxes[] = {{2, ""},
                      {2, "--parallel.expert=2"},
                      {2, "--parallel.pipeline=2 --parallel.schedule=1f1b"},
                      {4, "--parallel.pipeline=2 --parallel.schedule=dualpipev --parallel.expert=2"}};

// What more steps add to either, with all that stands between two steps, so that what a run begins and ends with is in
// neither. Where messages take long that is much of a step.
TEST_F(Exposed, TheReportSaysWhatTheTraceShows) {
  for (const auto& [ranks, overrides] : kAxes) {
    SCOPED_TRACE(overrides);
    Traced few = train(ranks, overrides, kFew);
    Traced many = train(ranks, overrides, kMany);
    Seconds few_waits = few.waits();
    Seconds many_waits = many.waits();
    double all = many.report.at("compute") - few.report.at("compute");
    double waited = 0;
    for (const char* wait : kWaits) {
      const double told = many.report.at(wait) - few.report.at(wait);
      EXPECT_NEAR(many_waits[wait] - few_waits[wait], told, 1e-6) << wait;
      all += told;
      if (wait != std::string_view("data_wait")) waited += told;
    }
    EXPECT_GT(waited, 0.4 * all);
    EXPECT_EQ(many_waits["bubble"] > 0, std::string_view(overrides).find("pipeline") != std::string_view::npos);
  }
}

// The pipeline times its actions by itself: what the meter calls a bubble lies between them.
TEST_F(Exposed, BubblesLieBetweenActions) {
  const Traced run = train(2, "--parallel.pipeline=2 --parallel.schedule=zb_h1", kFew);
  int bubbles = 0;
  for (const Bar& bubble : run.trace) {
    if (bubble.name != "bubble") continue;
    ++bubbles;
    for (const Bar& action : run.trace) {
      if (action.waits || action.row + ", waits" != bubble.row) continue;
      EXPECT_FALSE(action.begin < bubble.end && bubble.begin < action.end)
          << action.name << " in a bubble from " << bubble.begin;
    }
  }
  EXPECT_GT(bubbles, kFew);
}

}  // namespace
}  // namespace shoestring
