// The account of rank 0 with a clock that the test holds in its hands, read back from the files it leaves.
#include "core/training/account.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/budget/ledger_history.h"
#include "core/recipe/explain.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tests/core/model/small_models.h"
#include "tests/core/training/made_feed.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::HeldClock;
using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

constexpr int kRanks = 2;

class AccountTest : public ::testing::Test {
 protected:
  AccountTest() {
    recipe_.run.name = "r";
    recipe_.run.tensorboard = false;
    recipe_.budget.gpu_hours = kRanks * 1000.0 / 3600;  // 1000 s
    recipe_.schedule.horizon = Horizon::steps;
    PhaseSpec phase;
    phase.name = "only";
    phase.sequence = 12;
    phase.steps = 10;
    recipe_.phases = {phase};
    state_.recipe = "text\n";
  }
  ~AccountTest() override { std::fclose(out_); }
  std::unique_ptr<Account> leading() {
    return leading_account({.recipe = recipe_,
                            .state = state_,
                            .meter = meter_,
                            .clock = clock_,
                            .ranks = kRanks,
                            .head_start = head_start_,
                            .directory = run(),
                            .out = out_});
  }
  bool open(Account& account) {
    return account.open({.hardware = {}, .price = std::nullopt, .checkpoints = checkpoints_});
  }
  void start(Account& account) {
    account.start({.model = model_, .guessed_checkpoint_seconds = 5, .fresh = state_.step == 0});
  }
  /// One step of 3 s as the trainer makes it known: a tenth of its tokens is learned.
  void step(Account& account, double loss = 2) {
    clock_.seconds += 3;
    ++state_.step;
    ++state_.phase_steps;
    state_.tokens += 240;
    state_.learned_tokens += 24;
    state_.loss = loss;
    StepOutcome outcome;
    outcome.loss = loss;
    outcome.batch.tokens = 24;
    outcome.batch.text_tokens = 240;
    outcome.sequences = 2;
    outcome.seconds = 3;
    account.stepped(outcome, spent());
  }
  CategorySeconds spent() const {
    CategorySeconds all = meter_.read();
    for (double& seconds : all.seconds) seconds *= kRanks;
    return all;
  }
  AttemptHistory last_attempt() const { return read_ledger(run()).attempts.back(); }
  std::filesystem::path run() const { return folder_ / "run"; }
  std::string said() const {
    std::fflush(out_);
    return read_text(folder_ / "out");
  }

  TemporaryFolder folder_;
  std::FILE* out_ = std::fopen((folder_ / "out").c_str(), "w");
  HeldClock clock_;
  Meter meter_{clock_};
  HeadStart head_start_;
  Recipe recipe_;
  TrainingState state_;
  ModelConfig model_ = testing::small_config(Architecture::llama);
  CheckpointStore checkpoints_{run() / "checkpoints"};
};

// A run that ends there saves the step on its way out; its line would never be written.
TEST_F(AccountTest, AStepIsInTheMetricsThoughTheLedgerCannotBeWritten) {
  const std::unique_ptr<Account> account = leading();
  open(*account);
  start(*account);
  step(*account);
  for (const std::filesystem::path& open : list_directory("/proc/self/fd")) {
    std::error_code gone;
    if (std::filesystem::read_symlink(open, gone) != run() / "ledger.jsonl") continue;
    const int full = ::open("/dev/full", O_WRONLY);
    ::dup2(full, std::stoi(open.filename()));
    ::close(full);
  }
  EXPECT_THROW(step(*account), Error);
  EXPECT_NE(read_text(run() / "metrics.jsonl").find("\"step\":2,"), std::string::npos);
}

TEST_F(AccountTest, WhatWasDoneIsInTheLedgerAndTheMetrics) {
  clock_.seconds = 2;
  {
    const std::unique_ptr<Account> account = leading();
    EXPECT_FALSE(open(*account));
    start(*account);
    EXPECT_EQ(read_text(run() / "recipe.recipe"), standalone_text(recipe_));
    step(*account);
    step(*account, 1.5);
    account->note("odd", "something stood out");
    account->saved({.step = 2, .tokens = 48, .name = "step_00000002", .bytes = 7, .took_seconds = 1}, spent());
    Evaluator::Outcome outcome;
    outcome.metrics = {.step = 2, .tokens = 100, .loss = 1.25, .bits_per_byte = 2};
    outcome.whole = false;
    outcome.sequences = 4;
    outcome.all_sequences = 9;
    account->evaluated(outcome, 0.5, spent());
    account->ended(Stop::horizon, "where", spent());
  }
  const AttemptHistory attempt = last_attempt();
  EXPECT_EQ(attempt.start.run, "r");
  EXPECT_EQ(attempt.start.ranks, kRanks);
  EXPECT_GT(attempt.start.parameters, 0);
  EXPECT_EQ(attempt.reason, "done");
  EXPECT_EQ(attempt.exit_code, 0);
  EXPECT_EQ(attempt.last().step, 2);
  EXPECT_EQ(attempt.last().loss, 1.5);
  EXPECT_EQ(attempt.last().seconds.total(), kRanks * 8.0);
  double flops = 0;
  for (const double of_format : attempt.last().flops.values) flops += of_format;
  EXPECT_GT(flops, 0);
  EXPECT_DOUBLE_EQ(flops, 480 * attempt.start.flops_per_token) << "the model computes on what is only read too";
  EXPECT_EQ(attempt.last().tokens, 480);
  EXPECT_EQ(attempt.last().learned_tokens, 48);
  ASSERT_EQ(attempt.checkpoints.size(), 1u);
  EXPECT_EQ(attempt.checkpoints[0].name, "step_00000002");
  ASSERT_EQ(attempt.evaluations.size(), 1u);
  EXPECT_EQ(attempt.evaluations[0].sequences, 4);
  EXPECT_EQ(attempt.notes.size(), 2u);  // the odd thing, and that the evaluation was cut

  std::istringstream lines(read_text(run() / "metrics.jsonl"));
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(nlohmann::json::parse(line)["step"], 1);
  EXPECT_EQ(nlohmann::json::parse(line)["timing"]["step_seconds"], 3);
  EXPECT_EQ(nlohmann::json::parse(line)["timing"]["tokens_per_second"], 80);
  EXPECT_EQ(nlohmann::json::parse(line)["tokens"], 240);
  EXPECT_EQ(nlohmann::json::parse(line)["learned_tokens"], 24);
  for (const char* text : {"attempt 1 on 2 ranks, beginning from step 0", "something stood out",
                           "step_00000002 in 1.00 s", "cut to 4 of 9", "done after step 2; where is its model"}) {
    EXPECT_NE(said().find(text), std::string::npos) << text << " in\n" << said();
  }
}

TEST_F(AccountTest, AStartRemovesWhatAKilledOneWasReplacing) {
  write_text(run() / "recipe.recipe.tmp7", "[ru");
  write_text(run() / "metrics.jsonl.tmp7", "{");
  write_text(run() / "mine.tmp7", "kept");
  open(*leading());
  EXPECT_FALSE(std::filesystem::exists(run() / "recipe.recipe.tmp7"));
  EXPECT_FALSE(std::filesystem::exists(run() / "metrics.jsonl.tmp7"));
  EXPECT_TRUE(std::filesystem::exists(run() / "mine.tmp7"));
}

TEST_F(AccountTest, AStartHearsThatTheRunIsOver) {
  clock_.seconds = 5;
  for (const Stop stop : {Stop::signal, Stop::budget, Stop::horizon}) {
    const std::unique_ptr<Account> account = leading();
    EXPECT_FALSE(open(*account));
    start(*account);
    account->ended(stop, "where", spent());
  }
  EXPECT_TRUE(open(*leading()));
  {
    Ledger trial(run(), clock_);  // as plan --measure writes it
    AttemptStart start;
    start.from_step = -1;
    trial.begin(start);
    trial.end(std::string(kMeasuredOnly), 0, "", {});
  }
  EXPECT_TRUE(open(*leading()));
  recipe_.budget.gpu_hours = read_ledger(run()).charged_gpu_seconds() / 3600;
  const std::unique_ptr<Account> account = leading();
  EXPECT_TRUE(open(*account)) << "nothing is left to train, so nothing need fit under the cap";
  EXPECT_THROW(start(*account), Error) << "another recipe leaves something";
}

TEST_F(AccountTest, AnErrorClosesTheLedgerWithTheTimeOfAllRanks) {
  {
    const std::unique_ptr<Account> account = leading();
    open(*account);
    start(*account);
    step(*account);
    account->failed(Error(ExitCode::io, "no disk"));
  }
  const AttemptHistory attempt = last_attempt();
  EXPECT_EQ(attempt.reason, "failed");
  EXPECT_EQ(attempt.text, "no disk");
  EXPECT_EQ(attempt.exit_code, static_cast<int>(ExitCode::io));
  EXPECT_EQ(attempt.last().seconds.total(), kRanks * 3.0);
  EXPECT_FALSE(open(*leading()));
}

// The other rank was there 60 s before this one: that is spent, and on the bill of an attempt that ends without asking.
TEST_F(AccountTest, TheHeadStartOfOtherRanksIsSpent) {
  head_start_ = {.gpu_seconds = 60, .job_seconds = 60};
  {
    const std::unique_ptr<Account> account = leading();
    open(*account);
    EXPECT_EQ(read_ledger(run()).charged_gpu_seconds(), 60) << "dead before its first step";
    start(*account);
    step(*account);
    EXPECT_EQ(account->decide({.state = state_}).stop, Stop::none);
    clock_.seconds = 1000 - 30 - 2;  // the cap is of 1000 s of two ranks
    EXPECT_EQ(account->decide({.state = state_}).stop, Stop::budget);
    account->failed(Error(ExitCode::io, "no disk"));
  }
  const CategorySeconds charged = last_attempt().last().seconds;
  EXPECT_DOUBLE_EQ(charged.total(), kRanks * 968.0 + 60);
  const auto metrics = nlohmann::json::parse(read_text(run() / "metrics.jsonl"));
  EXPECT_DOUBLE_EQ(metrics.at("timing").at("gpu_hours").get<double>(), (kRanks * 3.0 + 60) / 3600);
}

// The cap learns from what is told: after steps of 3 s and a checkpoint of 10 s, 14.5 s are the least that must be
// left.
TEST_F(AccountTest, DecidesByTheCap) {
  const std::unique_ptr<Account> account = leading();
  open(*account);
  start(*account);
  step(*account);
  account->guess_evaluation(0);
  account->saved({.step = 1, .tokens = 24, .name = "step_00000001", .bytes = 7, .took_seconds = 10}, spent());
  EXPECT_DOUBLE_EQ(account->reserve_seconds(), 11.5 + 0.1);
  const Standing at{.state = state_, .saved_step = 1};
  clock_.seconds = 1000 - 14.7;
  EXPECT_EQ(account->decide(at), Decision{});
  EXPECT_EQ(said().find("no longer fit"), std::string::npos);
  clock_.seconds = 1000 - 14.5;
  EXPECT_EQ(account->decide(at).stop, Stop::budget);
  EXPECT_NE(said().find("budget.gpu_hours: the next step and what must follow no longer fit"), std::string::npos);
}

TEST_F(AccountTest, AHorizonIsInTheLedgerBeforeItIsFollowed) {
  recipe_.schedule.horizon = Horizon::budget;
  const std::unique_ptr<Account> account = leading();
  open(*account);
  start(*account);
  for (int i = 0; i < 2; ++i) step(*account);  // the first tells little
  const Decision decision = account->decide({.state = state_, .saved_step = 2});
  ASSERT_TRUE(decision.horizon.has_value());
  EXPECT_NE(read_text(run() / kLedgerFile).find(fmt::format("\"end_step\":{}", decision.horizon->end_step)),
            std::string::npos);
}

TEST_F(AccountTest, TheTwinOnOtherRanksIsSilent) {
  Account twin;
  EXPECT_FALSE(open(twin));
  start(twin);
  step(twin);
  twin.say("something");
  twin.note("odd", "something");
  twin.saved({}, spent());
  twin.evaluated({}, 1, spent());
  twin.ended(Stop::horizon, "where", spent());
  twin.failed(Error(ExitCode::io, "no disk"));
  EXPECT_EQ(twin.decide({.state = state_, .stop_requested = true}), Decision{});
  EXPECT_FALSE(twin.guesses_evaluation());
  EXPECT_FALSE(std::filesystem::exists(run()));
  EXPECT_EQ(said(), "");
}

}  // namespace
}  // namespace shoestring
