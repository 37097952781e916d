// Whole runs, as a user starts, kills, resumes and damages them.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/budget/ledger_history.h"
#include "core/budget/life_sign.h"
#include "kernels/base/random.h"
#include "tests/tools/program.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::after;
using testing::Ended;
using testing::read_text;
using testing::Workplace;
using testing::write_text;

const Workplace& place() {
  static const Workplace workplace;
  return workplace;
}

nlohmann::json report_of(const std::string& name) {
  return nlohmann::json::parse(read_text(place().run_folder(name) / "report.json"));
}

// A run that no machine brings to its end before it is interrupted.
constexpr const char* kEndless = "--phase.pretrain.steps=1000000 --checkpoint.every_steps=0";

TEST(Train, EndsWithAModelAndATrueReport) {
  const Ended ended = place().run(place().train("whole"));
  ASSERT_EQ(ended.exit_code, 0) << ended.output;
  const fs::path checkpoint = place().run_folder("whole") / "checkpoints/step_00000020";
  for (const char* file :
       {"config.json", "model.safetensors", "byte_tokenizer.json", "training/state.json", "manifest.json"}) {
    EXPECT_TRUE(fs::exists(checkpoint / file)) << file;
  }
  const nlohmann::json report = report_of("whole");
  EXPECT_EQ(report["schema"], "shoestring.report/1");
  EXPECT_EQ(report["run"]["name"], "whole");
  EXPECT_EQ(report["attempts"].size(), 1u);
  EXPECT_GT(report["tokens"].get<double>(), 0);
  EXPECT_GT(report["validation"]["loss"].get<double>(), 0);
  EXPECT_GT(report["validation"]["bits_per_byte"].get<double>(), 0);
  double sum = 0;
  for (const auto& [category, hours] : report["categories"].items()) sum += hours.get<double>();
  EXPECT_NEAR(sum, report["budget"]["spent_gpu_hours"].get<double>(), 0.01 * sum);

  const Ended sample = place().run("sample runs/whole --prompt int --tokens 5 --threads 1");
  EXPECT_EQ(sample.exit_code, 0);
  EXPECT_EQ(sample.output.rfind("int", 0), 0u) << sample.output;
  EXPECT_EQ(place().run("report runs/whole").exit_code, 0);
}

// What a newcomer does first.
TEST(Train, OneFileTrainsWithValidation) {
  std::string text;
  for (int i = 0; i < 10; ++i) text += read_text(place().path() / "text" / (std::to_string(i) + ".c"));
  write_text(place().path() / "input.txt", text);
  const Ended built = place().run("data build input.txt --out one --tokenizer bytes --hold-out 10% --extensions TXT");
  ASSERT_EQ(built.exit_code, 0) << built.output;
  const Ended ended = place().run(place().train("one", "--data.train=one/train --data.validation=one/validation"));
  ASSERT_EQ(ended.exit_code, 0) << ended.output;
  EXPECT_GT(report_of("one")["validation"]["bits_per_byte"].get<double>(), 0);
}

// A path that leads nowhere makes no attempt of the run, and costs nothing.
TEST(Train, AWrongPathIsNoAttempt) {
  fs::create_directories(place().path() / "empty");
  const Ended ended = place().run(place().train("nothing", "--data.validation=empty"));
  EXPECT_EQ(ended.exit_code, 66) << ended.output;
  EXPECT_TRUE(read_ledger(place().run_folder("nothing")).attempts.empty());
}

TEST(Train, RefusesAnotherNumberOfRanksThanTheRecipeAsksFor) {
  const Ended refused = place().run(place().train("ranks", "--parallel.data=4"));
  EXPECT_EQ(refused.exit_code, 78) << refused.output;
  EXPECT_NE(refused.output.find("parallel.data = 4, but the run was launched on 1 rank;"), std::string::npos)
      << refused.output;
  EXPECT_FALSE(fs::exists(place().run_folder("ranks")));
  EXPECT_EQ(place().run(place().train("ranks", "--parallel.data=1")).exit_code, 0);
}

TEST(Train, LearnsTheText) {
  ASSERT_EQ(place().run(place().train("learns", "--phase.pretrain.steps=60 --schedule.learning_rate=3e-3")).exit_code,
            0);
  EXPECT_LT(report_of("learns")["validation"]["loss"].get<double>(), 3.0);  // ln 260 = 5.6 at the start
}

// SIGKILL at random moments of a run that no machine brings to its end, then ten steps more than are saved: the same
// bits as a run that nothing disturbed.
TEST(Train, KilledAndResumedGivesTheSameBits) {
  const auto until = [](const std::string& name, std::int64_t steps) {
    return place().train(name, fmt::format("--phase.pretrain.steps={} --schedule.kind=constant --precision.policy=bf16 "
                                           "--checkpoint.every_steps=10 --allow-recipe-change",
                                           steps));
  };
  const Random random(7, Purpose::test);
  constexpr int kKills = 5;
  for (int kill = 0; kill < kKills; ++kill) {
    const Ended ended = place().interrupt("killed", until("killed", 1000000), SIGKILL, [&] {
      if (kill == 0) testing::wait_for_step(place(), "killed");  // this one loses steps for certain
      after(0.2 * random.uniform(static_cast<std::uint64_t>(kill)))();
    });
    ASSERT_EQ(ended.exit_code, 128 + SIGKILL) << ended.output;
  }
  const std::int64_t steps = testing::saved_step(place(), "killed") + 10;
  const Ended ended = place().run(until("killed", steps));
  EXPECT_EQ(ended.exit_code, 0) << ended.output;
  const Ended undisturbed = place().run(until("undisturbed", steps));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.output;
  EXPECT_EQ(place().result("killed"), place().result("undisturbed"));
  const nlohmann::json report = report_of("killed");
  EXPECT_EQ(report["attempts"].size(), static_cast<std::size_t>(kKills) + 1);
  EXPECT_GT(report["categories"]["lost"].get<double>(), 0);
  double sum = 0;
  for (const auto& [category, hours] : report["categories"].items()) sum += hours.get<double>();
  EXPECT_NEAR(sum, report["budget"]["spent_gpu_hours"].get<double>(), 0.01 * sum);
}

TEST(Train, SavesAndLeavesOnSignals) {
  for (const int signal : {SIGUSR2, SIGTERM, SIGHUP, SIGUSR1, SIGINT}) {
    const std::string name = "asked_" + std::to_string(signal);
    const Ended ended =
        place().interrupt(name, place().train(name, kEndless), signal, [&] { testing::wait_for_step(place(), name); });
    EXPECT_EQ(ended.exit_code, 75) << ended.output;
    EXPECT_EQ(std::distance(fs::directory_iterator(place().run_folder(name) / "checkpoints"), fs::directory_iterator()),
              2);
  }
}

// Whether it comes while the run is loaded, when there is nothing to save yet, or later.
TEST(Train, LeavesOnASignalAsItStarts) {
  const Ended ended = place().interrupt("starting", place().train("starting", kEndless), SIGUSR2, [] {});
  EXPECT_EQ(ended.exit_code, 75) << ended.output;
  EXPECT_NE(ended.output.find("left as asked"), std::string::npos) << ended.output;
  EXPECT_EQ(place().run(place().train("starting", "--phase.pretrain.steps=5 --allow-recipe-change")).exit_code, 0);
}

// The cap is a multiple of what a short run costs on this machine at this hour. How closely it is kept depends on how
// evenly the machine runs, so that is tested with a clock held in hand (cap_test.cpp); here, no step is taken beyond
// it.
TEST(Train, BudgetEndsTheRunAndThenRefuses) {
  ASSERT_EQ(place().run(place().train("probe", "--phase.pretrain.steps=5")).exit_code, 0);
  const double probe = report_of("probe")["budget"]["spent_gpu_hours"].get<double>();
  const auto capped = [&](double probes) {
    return place().train("capped", "--schedule.horizon=budget --checkpoint.every_steps=0 --budget.gpu_hours=" +
                                       std::to_string(3600 * probes * probe) + "s");
  };
  const Ended ended = place().run(capped(6));
  ASSERT_EQ(ended.exit_code, 0) << ended.output;
  EXPECT_GT(report_of("capped")["tokens"].get<double>(), 0);
  // What a slow moment left over may be worth another step; then nothing is: each start costs something.
  int code = 0;
  for (int again = 0; code == 0 && again < 100; ++again) code = place().run(capped(6)).exit_code;
  EXPECT_EQ(code, 84);
  EXPECT_LE(testing::hours_of_steps(report_of("capped")), 6 * probe + testing::slowest_step_hours(place(), "capped"));
  // The schedule has ended with the budget: more of it would buy steps at the last learning rate.
  const Ended refused = place().run(capped(12));
  EXPECT_EQ(refused.exit_code, 78) << refused.output;
  EXPECT_NE(refused.output.find("schedule"), std::string::npos) << refused.output;
  EXPECT_EQ(place().run(capped(12) + " --allow-recipe-change").exit_code, 0);
}

// A start that is refused changes nothing in the bill of the attempt before, however that one ended.
TEST(Train, ARefusedStartChangesNoBill) {
  const std::string train = place().train("billed", kEndless);
  ASSERT_EQ(place().interrupt("billed", train, SIGKILL, after(0.4)).exit_code, 128 + SIGKILL);
  last_life_sign(place().run_folder("billed"));  // waits for it: the killed process leaves memory first
  const auto spent = [] { return place().run("report runs/billed --json").output; };
  const std::string before = spent();
  EXPECT_EQ(place().run(train + " --budget.gpu_hours=0.00001").exit_code, 84);
  EXPECT_EQ(spent(), before);
}

TEST(Train, WithoutItsLedgerARunDoesNotBeginItsBudgetAnew) {
  const std::string train = place().train("robbed", "--phase.pretrain.steps=5");
  ASSERT_EQ(place().run(train).exit_code, 0);
  for (const char* ledger : {"", "{{\n"}) {
    write_text(place().run_folder("robbed") / "ledger.jsonl", ledger);
    for (int time = 0; time < 2; ++time) {
      const Ended refused = place().run(train);
      EXPECT_EQ(refused.exit_code, 65) << refused.output;
      EXPECT_NE(refused.output.find("ledger"), std::string::npos) << refused.output;
    }
  }
}

TEST(Train, JobsTooShortForAStepAreNotStartedForEver) {
  const Ended ended = place().run(place().train("short", "--budget.job_hours=0.00001"));
  EXPECT_EQ(ended.exit_code, 83) << ended.output;
  EXPECT_NE(ended.output.find("budget.job_hours"), std::string::npos) << ended.output;
}

TEST(Train, AReportThatCannotBeStoredFailsNoRun) {
  fs::create_directories(place().run_folder("unreported") / "report.json.tmp");
  const Ended ended = place().run(place().train("unreported", "--phase.pretrain.steps=5"));
  EXPECT_EQ(ended.exit_code, 0) << ended.output;
  EXPECT_NE(ended.output.find("report could not be stored"), std::string::npos) << ended.output;
}

// What a signal cuts short at the end is made up for: a run that is done has been evaluated.
TEST(Train, ASignalAtTheEndLosesNoEvaluation) {
  const std::string train = place().train("late", "--phase.pretrain.steps=10");
  const fs::path saved = place().run_folder("late") / "checkpoints/step_00000010/manifest.json";
  const Ended ended = place().interrupt("late", train, SIGUSR2, [&] {
    for (int wait = 0; wait < 60000 && !fs::exists(saved); ++wait) after(0.001)();
  });
  if (ended.exit_code != 0) {
    ASSERT_EQ(ended.exit_code, 75) << ended.output;
    ASSERT_EQ(place().run(train).exit_code, 0);
  }
  EXPECT_TRUE(report_of("late")["validation"].contains("loss"));
}

TEST(Train, ExactlyOneTrainerInARunDirectory) {
  Ended second;
  const std::string train = place().train("shared", kEndless);
  const Ended first = place().interrupt("shared", train, SIGUSR2, [&] { second = place().run(train); });
  EXPECT_EQ(first.exit_code, 75) << first.output;
  EXPECT_EQ(second.exit_code, 74) << second.output;
}

TEST(Train, FallsBackFromADamagedCheckpoint) {
  ASSERT_EQ(place().run(place().train("damaged")).exit_code, 0);
  const auto sound = place().result("damaged");
  const fs::path file = place().run_folder("damaged") / "checkpoints/step_00000020/model.safetensors";
  std::string bytes = read_text(file);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_text(file, bytes);
  const Ended ended = place().run(place().train("damaged"));
  EXPECT_EQ(ended.exit_code, 0) << ended.output;
  EXPECT_NE(ended.output.find("passed over"), std::string::npos) << ended.output;
  EXPECT_EQ(place().result("damaged"), sound);
}

// A run goes on with its own recipe, unless told to take another; the run directory shows the one it took.
TEST(Train, RefusesAnotherRecipeForARunUnderWay) {
  ASSERT_EQ(place().run(place().train("kept", "--phase.pretrain.steps=5")).exit_code, 0);
  const fs::path file = place().run_folder("kept") / "recipe.recipe";
  const std::string recipe = read_text(file);
  const std::string other = place().train("kept", "--phase.pretrain.steps=8 --optimizer.beta1=0.5");
  const Ended refused = place().run(other);
  EXPECT_EQ(refused.exit_code, 78) << refused.output;
  for (const char* word : {"optimizer.beta1", "phase.pretrain.steps", "--allow-recipe-change"}) {
    EXPECT_NE(refused.output.find(word), std::string::npos) << refused.output;
  }
  EXPECT_EQ(read_text(file), recipe);
  const Ended allowed = place().run(other + " --allow-recipe-change");
  EXPECT_EQ(allowed.exit_code, 0) << allowed.output;
  EXPECT_NE(read_text(file).find("beta1 = 0.5"), std::string::npos);
}

TEST(Train, FullDiskKeepsTheOlderCheckpoint) {
  ASSERT_EQ(place().run(place().train("full", "--phase.pretrain.steps=5")).exit_code, 0);
  const auto before = place().result("full");
  const Ended ended =
      place().run(place().train("full", "--phase.pretrain.steps=20 --allow-recipe-change"), "ulimit -f 64;");
  EXPECT_EQ(ended.exit_code, 74) << ended.output;
  EXPECT_EQ(place().result("full")["weights"], before.at("weights"));
  EXPECT_EQ(place().run(place().train("full", "--phase.pretrain.steps=20 --allow-recipe-change")).exit_code, 0);
}

// What goes wrong before the first step has cost time as well.
TEST(Train, FailingToLoadIsAnAttempt) {
  const Ended large =
      place().run(place().train("loads", "--model.hidden=4096 --model.feed_forward=8192"), "ulimit -v 1000000;");
  EXPECT_EQ(large.exit_code, 74) << large.output;
  for (const char* part : {"memory: this rank needs", "`ulimit -v` is 0.954 GiB", "phase.NAME.micro_batch"}) {
    EXPECT_NE(large.output.find(part), std::string::npos) << large.output;
  }
  EXPECT_EQ(place().run(place().train("loads", "--data.tokenizer=absent")).exit_code, 66);
  EXPECT_EQ(place().run(place().train("loads")).exit_code, 0);
  const nlohmann::json report = report_of("loads");
  ASSERT_EQ(report["attempts"].size(), 3u);
  EXPECT_NE(report["attempts"][0]["text"].get<std::string>().find("memory: this rank needs"), std::string::npos);
  for (const nlohmann::json& attempt : report["attempts"]) EXPECT_GT(attempt["gpu_hours"].get<double>(), 0);
}

TEST(Train, EveryShardMustFindItsPlaceAmongTheOpenFiles) {
  const Ended few = place().run(place().train("few"), "ulimit -n 40;");
  EXPECT_EQ(few.exit_code, 74) << few.output;
  EXPECT_NE(few.output.find("the system allows 40; raise `ulimit -Hn`"), std::string::npos) << few.output;
  EXPECT_EQ(place().run(place().train("few"), "ulimit -Sn 40;").exit_code, 0) << "what may be raised is";
}

// The exit code is the error's own where there is nowhere to say it; a build goes on unheard.
TEST(Train, AFullStderrChangesNothing) {
  EXPECT_EQ(place().run("train nope 2>/dev/full").exit_code, 66);
  EXPECT_EQ(place().run("data build text --out unheard --tokenizer bytes --threads 1 2>/dev/full").exit_code, 0);
}

// A command whose product is what it prints has failed when that is lost, however long it is; training has not.
TEST(Train, AFullStdoutFailsWhatSpeaks) {
  for (const char* command : {"plan small.recipe", "explain small.recipe", "data inspect shards/train"}) {
    const Ended ended = place().run(std::string(command) + " 2>&1 >/dev/full");
    EXPECT_EQ(ended.exit_code, 74) << command;
    EXPECT_NE(ended.output.find("standard output could not be written"), std::string::npos) << ended.output;
  }
  EXPECT_EQ(place().run(place().train("unseen") + " >/dev/full").exit_code, 0);
}

// No file takes the place of a stream that is closed, and with it what is printed.
TEST(Train, ClosedStreamsLeaveFilesClean) {
  const Ended ended = place().run(place().train("closed") + " >&-");
  ASSERT_EQ(ended.exit_code, 0);
  std::istringstream lines(read_text(place().run_folder("closed") / "ledger.jsonl"));
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) EXPECT_TRUE(line.starts_with("{")) << line;
  EXPECT_GT(count, 2);
}

TEST(Train, ALimitOnFileSizesIsAnErrorOfTheBuild) {
  const Ended ended = place().run("data build text --out limited --tokenizer bytes --threads 1", "ulimit -f 8;");
  EXPECT_EQ(ended.exit_code, 74) << ended.output;
}

// Nothing is timed for a mistyped name or a file that cannot be written.
TEST(Bench, RefusesBeforeAnythingIsTimed) {
  const std::pair<const char*, int> refusals[] = {
      {"bench calibration gem --seconds 0.1", 64},
      {"bench calibration --seconds 0.1 --json absent/rows.json", 74},
      {"bench calibration --seconds 0.1 --json text", 74},
  };
  for (const auto& [arguments, code] : refusals) {
    const Ended ended = place().run(arguments);
    EXPECT_EQ(ended.exit_code, code) << arguments << ": " << ended.output;
    EXPECT_EQ(ended.output.find("calibration: "), std::string::npos) << ended.output;
  }
  EXPECT_NE(place().run("bench gem").output.find("did you mean 'gemm'?"), std::string::npos);
}

// On a processor without vectors: refused where the recipe's steps would crawl, before a run folder is made; otherwise
// said, and trained.
TEST(Train, WithoutVectorsNoRunCrawlsUnasked) {
  const std::string automatic =
      "--kernels.allow_reference=automatic --phase.pretrain.steps=1 --schedule.warmup_steps=0 --evaluation.tokens=64 ";
  const std::string portable = "env SHOESTRING_MAX_ISA=portable";
  const std::string crawl =
      "--phase.pretrain.sequence=2048 --phase.pretrain.micro_batch=1 --phase.pretrain.global_batch=4";
  const Ended refused = place().run(place().train("crawl", automatic + crawl), portable);
  EXPECT_EQ(refused.exit_code, 78) << refused.output;
  EXPECT_NE(refused.output.find("attention_forward=reference"), std::string::npos) << refused.output;
  EXPECT_NE(refused.output.find("kernels.allow_reference = yes"), std::string::npos) << refused.output;
  EXPECT_FALSE(fs::exists(place().run_folder("crawl")));
  const Ended walks = place().run(place().train("walks", automatic), portable);
  EXPECT_EQ(walks.exit_code, 0) << walks.output;
  EXPECT_NE(walks.output.find("no vector rows here for"), std::string::npos) << walks.output;
  const Ended forbidden = place().run(place().train("forbidden", "--kernels.allow_reference=no"), portable);
  EXPECT_EQ(forbidden.exit_code, 78) << forbidden.output;
}

TEST(Train, EveryRefusalHasItsCodeAndSaysWhy) {
  const std::pair<const char*, int> refusals[] = {
      {"train absent.recipe", 66},
      {"train", 64},
      {"train small.recipe --model.layer=3", 78},
      {"train small.recipe --model.layers 3", 64},
      {"train small.recipe -model.layers=3", 64},
      {"train small.recipe ---", 64},
      {"train small.recipe --run.name=u --kernels.pin=gem=reference", 78},
      {"train small.recipe --run.name=u --kernels.pin=gemm=avx5", 78},
      {"train small.recipe --run.name=u --run.directory=/dev/null/run", 74},
      {"train small.recipe --run.name=u --data.train=absent", 66},
      {"tarin small.recipe", 64},
      {"data build text --out refused --hold-out 2", 64},
      {"data build text --out refused --vocabulary 4Kb", 64},
      {"data build text --out refused --tokenizer bytes --vocabulary 400", 64},
      {"data build text --out refused --tokenizer bytes --tokenizer-sample 1Mi", 64},
      {"data build text --out refused --tokenizer bytes --chat plain --field text", 64},
      {"data build text --out refused --extensions ,*", 64},
      {"data build text --out refused,too", 64},
      {"data build text --out 'refused#1'", 64},
      {"data build text --out 'refused\n'", 64},
      {"data build text --out 'refused '", 64},
      {"report runs/absent", 66},
      {"sample runs/absent", 66},
      {"data verify text/1.c", 65},
  };
  for (const auto& [arguments, code] : refusals) {
    const Ended ended = place().run(arguments);
    EXPECT_EQ(ended.exit_code, code) << arguments << ": " << ended.output;
    EXPECT_GT(ended.output.size(), 20u) << arguments;
  }
  EXPECT_NE(place().run("tarin small.recipe").output.find("train"), std::string::npos);
  EXPECT_NE(place().run("train small.recipe --model.layer=3").output.find("model.layers"), std::string::npos);
  EXPECT_NE(place().run("train small.recipe --model.layers 3").output.find("--model.layers=VALUE"), std::string::npos);
  const std::string one_dash = place().run("train small.recipe -model.layers=3").output;
  EXPECT_NE(one_dash.find("write --model.layers=3\n"), std::string::npos) << one_dash;
}

}  // namespace
}  // namespace shoestring
