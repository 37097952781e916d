// Suites within whole runs, and by themselves.
#include "core/training/suite_evaluation.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/budget/report.h"
#include "core/generation/open_model.h"
#include "core/generation/suite_answers.h"
#include "core/recipe/parse.h"
#include "core/training/snapshot.h"
#include "core/training/trainer.h"
#include "kernels/base/check.h"
#include "tests/core/training/small_corpus.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

constexpr const char* kRun = R"([run]
name = r
threads = 1
tensorboard = false
[budget]
gpu_hours = 10
[precision]
policy = fp32
[parallel]
reduction_groups = 2
[schedule]
kind = constant
horizon = steps
learning_rate = 1e-2
[phase.first]
sequence = 16
micro_batch = 1
global_batch = 2
steps = 6
[phase.second]
sequence = 16
micro_batch = 1
global_batch = 2
steps = 4
)";

constexpr const char* kDense = R"([model]
architecture = llama
layers = 1
hidden = 32
heads = 1
feed_forward = 32
max_positions = 64
init_std = 0.02
)";
constexpr const char* kMixtures = R"([model]
architecture = deepseek_v3
layers = 5
hidden = 32
heads = 2
q_lora_rank = 16
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 8
feed_forward = 48
experts = 4
experts_per_token = 2
shared_experts = 1
expert_feed_forward = 16
dense_layers = 1
mtp_layers = 1
max_positions = 64
init_std = 0.02
)";

// Every kind; the last text is longer than the model has positions.
constexpr const char* kSuite =
    R"({"task":"pick","request_type":"multiple_choice","context":"value 7 is","choices":["49","is is","x"],"gold":0}
{"task":"pick","request_type":"multiple_choice","context":"value 31 is","choices":["a","0"],"gold":1}
{"task":"pick","request_type":"multiple_choice","context":"value 33","choices":["is","value"],"gold":0}
{"task":"next","request_type":"loglikelihood","context":"value 3","continuation":" is"}
{"task":"next","request_type":"loglikelihood","context":"","continuation":"value"}
{"task":"say","request_type":"generate_until","context":"value 4 is","target":"16","until":["\n"],"max_gen_toks":5}
{"task":"text","request_type":"loglikelihood_rolling","text":"value 1 is 1\nvalue 2 is 4\nvalue 3 is 9\nvalue 4 is 16\nvalue 5 is 25\n"}
)";

class SuiteEvaluation : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    testing::build_small_corpus(folder_->path());
    for (const auto& [name, model] : {std::pair{"dense", kDense}, std::pair{"mixtures", kMixtures}}) {
      write_text(*folder_ / name,
                 fmt::format("{}{}[data]\ntrain = {}\n", kRun, model, (*folder_ / "shards/train").string()));
    }
    write_text(*folder_ / "suite.jsonl", kSuite);
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static fs::path run_folder(const std::string& name) { return *folder_ / "runs" / name; }
  static std::string suite() { return (*folder_ / "suite.jsonl").string(); }

  static ExitCode train(Communicator& world, const std::string& name, const std::vector<std::string>& more,
                        const std::string& recipe = "dense") {
    static std::FILE* nowhere = std::fopen("/dev/null", "w");
    std::vector<std::string> all = {"--run.directory=" + run_folder(name).string()};
    all.insert(all.end(), more.begin(), more.end());
    TrainerOptions options;
    options.out = nowhere;
    return Trainer(parse_recipe(*folder_ / recipe, all).recipe, world, system_clock(), options).run();
  }
  /// What the metrics say of suites, line by line.
  static std::vector<nlohmann::json> asked(const std::string& name) {
    std::vector<nlohmann::json> found;
    std::istringstream lines(read_text(run_folder(name) / "metrics.jsonl"));
    for (std::string text; std::getline(lines, text);) {
      const nlohmann::json line = nlohmann::json::parse(text);
      if (line.contains("suites")) found.push_back(line);
    }
    return found;
  }
  static fs::path checkpoint(const std::string& name) {
    return CheckpointStore(run_folder(name) / "checkpoints").newest([](const std::string&) {}).value();
  }

  static std::unique_ptr<TemporaryFolder> folder_;
};
std::unique_ptr<TemporaryFolder> SuiteEvaluation::folder_;

// At the end of each phase, and the last time what `evaluate` makes of the checkpoint, bit for bit.
TEST_F(SuiteEvaluation, ARunAnswersAsItsCheckpointDoes) {
  const std::unique_ptr<Communicator> alone = self_communicator();
  ASSERT_EQ(train(*alone, "alone", {"--evaluation.suites=" + suite()}), ExitCode::done);
  const std::vector<nlohmann::json> lines = asked("alone");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["step"], 6);
  EXPECT_EQ(lines[1]["step"], 10);
  EXPECT_EQ(lines[0]["suites"]["phase"], "first");
  EXPECT_EQ(lines[1]["suites"]["requests"], 7);
  EXPECT_NE(lines[0]["suites"]["scores"], lines[1]["suites"]["scores"]);

  OpenModel model(checkpoint("alone"), {.threads = 1});
  const std::vector<SuiteRequest> requests = read_suite(suite());
  const AskedModel who{model.forward(), model.tokenizer(), model.ids()};
  const std::vector<SuiteAnswer> answers =
      answer_suite(who, requests, tokens_of(who, requests), [](std::size_t, const SuiteAnswer&) {});
  const auto tasks = score_suite(requests, answers);
  std::size_t at = 0;
  const nlohmann::json& scores = lines[1]["suites"]["scores"];
  for (const TaskScores& task : tasks) {
    for (const auto& [metric, measured] : task.scores) {
      const nlohmann::json& score = scores.at(at++);
      EXPECT_EQ(score["task"], task.task);
      EXPECT_EQ(score["metric"], metric);
      EXPECT_EQ(score["value_hex"], fmt::format("{:a}", measured.value)) << task.task << " " << metric;
      EXPECT_EQ(score.contains("error"), measured.error >= 0);
    }
  }
  EXPECT_EQ(at, scores.size());
  EXPECT_EQ(at, 8u);  // acc, acc_norm; acc, perplexity; exact_match; three of the text
  testing::run_ranks(
      2, [&](Communicator& world) { train(world, "two", {"--evaluation.suites=" + suite()}); }, 20);
  EXPECT_EQ(asked("two"), lines);
}

// Ranks that hold the model together, along a pipeline of every form, with experts on several of them, and with one
// that has no request in the last turn: the scores of one rank, to the bit.
TEST_F(SuiteEvaluation, AModelOnSeveralRanksAnswersAsOnOne) {
  const std::vector<std::string> all = {"--evaluation.suites=" + suite(), "--parallel.reduction_groups=4",
                                        "--phase.first.global_batch=16", "--phase.second.global_batch=16"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), all.begin(), all.end());
    return more;
  };
  const std::unique_ptr<Communicator> alone = self_communicator();
  ASSERT_EQ(train(*alone, "on one", with({}), "mixtures"), ExitCode::done);
  const std::vector<nlohmann::json> expected = asked("on one");
  ASSERT_EQ(expected.size(), 2u);
  const std::string pipeline = "--parallel.pipeline=2", expert = "--parallel.expert=2";
  const std::vector<std::pair<int, std::vector<std::string>>> layouts = {
      {2, {pipeline, "--parallel.schedule=1f1b"}},
      {2, {pipeline, "--parallel.schedule=interleaved"}},
      {2, {pipeline, "--parallel.schedule=dualpipev"}},
      {2, {expert}},
      {4, {"--parallel.expert=4"}},
      {4, {pipeline, expert}}};
  int number = 0;
  for (const auto& [ranks, axes] : layouts) {
    const std::string name = fmt::format("on several {}", ++number);
    const std::vector<std::string> options = with(axes);
    testing::run_ranks(
        ranks, [&](Communicator& world) { train(world, name, options, "mixtures"); }, 30);
    EXPECT_EQ(asked(name), expected) << fmt::format("{}", fmt::join(axes, " "));
  }
}

TEST_F(SuiteEvaluation, TheReportHasThemAndTheBillTheirTime) {
  const std::unique_ptr<Communicator> alone = self_communicator();
  ASSERT_EQ(train(*alone, "told", {"--phase.second.suites=" + suite()}), ExitCode::done);
  const Report report = make_report(run_folder("told"));
  ASSERT_EQ(report.suites.size(), 1u);
  EXPECT_EQ(report.suites[0].phase, "second");
  EXPECT_EQ(report.suites[0].all_requests, 7);
  EXPECT_GT(report.charged[Category::evaluation], 0.5 * report.suites[0].took_seconds);
  EXPECT_NE(report_text(report).find("acc_norm"), std::string::npos);
  EXPECT_NE(report_html(report).find("Questions answered"), std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(report_json(report))["suites"][0]["scores"].size(), 8u);
}

// Refused before the first step, though only the second phase asks.
TEST_F(SuiteEvaluation, FaultsAreFoundBeforeTheFirstStep) {
  const std::unique_ptr<Communicator> alone = self_communicator();
  const auto refused = [&](const std::string& files, ExitCode code, const std::string& named) {
    try {
      train(*alone, "refused", {"--phase.second.suites=" + files});
      ADD_FAILURE() << files;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
    }
  };
  refused((*folder_ / "nowhere.jsonl").string(), ExitCode::missing_input, "nowhere.jsonl");
  write_text(*folder_ / "again.jsonl",
             R"({"task":"next","request_type":"loglikelihood","context":"a","continuation":"b"})");
  refused(suite() + ", " + (*folder_ / "again.jsonl").string(), ExitCode::bad_data, "stands in");
  write_text(*folder_ / "long.jsonl",
             fmt::format(R"({{"task":"l","request_type":"loglikelihood","context":"a","continuation":"{}"}})",
                         std::string(65, 'b')));
  refused((*folder_ / "long.jsonl").string(), ExitCode::bad_data, "longer than the model's 64 positions");
}

bool never() { return false; }
bool at_once() { return true; }

TEST_F(SuiteEvaluation, IsCutToWhatFits) {
  const std::unique_ptr<Communicator> alone = self_communicator();
  ASSERT_EQ(train(*alone, "cut", {}), ExitCode::done);
  const Recipe recipe = parse_recipe_text(Snapshots::state_of(checkpoint("cut")).recipe, "state").recipe;
  const Layout layout = layout_of(recipe, 0, 1);
  Mesh mesh(*alone, layout.shape);
  RunResources resources(recipe, layout, mesh, machine_share(*alone));
  resources.begin_weights(0, false);
  resources.model().prepare();
  const std::vector<SuiteRequest> requests = read_suite(suite());
  SuiteEvaluator evaluator(resources.model(), mesh, resources.tokenizer(), resources.text_ids(), requests,
                           layout.schedule);
  const SuiteEvaluator::Outcome nothing = evaluator.run(never, -1);
  EXPECT_FALSE(nothing.whole);
  EXPECT_FALSE(nothing.stopped);
  EXPECT_EQ(nothing.requests, 0);
  EXPECT_TRUE(nothing.scores.empty());
  EXPECT_TRUE(evaluator.run(at_once).stopped);
  EXPECT_TRUE(evaluator.run(never).whole);
  EXPECT_GT(evaluator.estimate_seconds(never), 0);
  EXPECT_GE(SuiteEvaluator::bytes(resources.model(), resources.tokenizer(), requests), 64 * 2 * 32 * 4);
}

}  // namespace
}  // namespace shoestring
