#include "core/budget/ledger.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/budget/ledger_history.h"
#include "kernels/base/check.h"
#include "tests/core/budget/hand_clock.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::HandClock;
using testing::TemporaryFolder;

AttemptStart start_of(int ranks, std::int64_t from_step = 0) {
  AttemptStart start;
  start.run = "test";
  start.ranks = ranks;
  start.from_step = from_step;
  start.from_tokens = std::max<std::int64_t>(0, from_step) * 100;
  start.cap = {0.05, "budget.gpu_hours", 1};
  return start;
}

/// At `step`, with `seconds` of compute and one of startup, times the ranks.
AttemptProgress at(std::int64_t step, double seconds, int ranks = 1, const char* phase = "pretrain") {
  AttemptProgress progress;
  progress.step = step;
  progress.tokens = step * 100;
  progress.phase = phase;
  progress.seconds[Category::startup] = ranks;
  progress.seconds[Category::compute] = ranks * seconds;
  progress.flops[RateFormat::fp8] = 1e9 * static_cast<double>(step);
  progress.loss = 2.5;
  return progress;
}

std::string line_of(const std::string& kind, int attempt, const std::string& rest) {
  return "{\"kind\":\"" + kind + "\",\"attempt\":" + std::to_string(attempt) + ",\"mono\":1,\"wall\":1" + rest + "}\n";
}

TEST(Ledger, AnAttemptThatEndsIsChargedWhatItSays) {
  TemporaryFolder folder;
  HandClock clock;
  {
    Ledger ledger(folder.path(), clock);
    EXPECT_EQ(ledger.attempt(), 1);
    ledger.begin(start_of(2));
    ledger.variants({{"gemm", "amx"}, {"rope", "portable"}});
    ledger.variants({{"rope", "simd"}});  // of a later phase
    clock.now += 10;
    ledger.heartbeat(at(5, 10, 2));
    ledger.horizon({5, 0.25, 20, 1, 0});
    ledger.evaluation({5, 1000, 2.25, 1.125, 0.5, 12, 30}, at(5, 10.5, 2));
    ledger.suites({5, "p", 9, 10, 0.25, {{"t", "acc", 9, 0.75, 0.125}, {"u", "perplexity", 1, 3, -1}}}, at(5, 10.5, 2));
    clock.now += 5;
    ledger.checkpoint({9, 900, "step-9", 1234, 0.5}, at(9, 15, 2));
    ledger.note("spike", "step 7 skipped");
    ledger.end("done", 0, "", at(9, 16, 2));
    ledger.end("failed", 70, "ignored", at(9, 16, 2));
  }
  const LedgerHistory history = read_ledger(folder.path());
  ASSERT_EQ(history.attempts.size(), 1u);
  const AttemptHistory& attempt = history.attempts[0];
  EXPECT_EQ(attempt.state, AttemptState::ended);
  EXPECT_EQ(attempt.reason, "done");
  EXPECT_EQ(attempt.start.ranks, 2);
  EXPECT_EQ(attempt.start.variants.at("gemm"), "amx");
  EXPECT_EQ(attempt.start.variants.at("rope"), "simd");
  EXPECT_EQ(attempt.start.cap.gpu_hours, 0.05);
  EXPECT_EQ(history.charged_gpu_seconds(), 34);
  EXPECT_EQ(history.charged()[Category::lost], 0);
  EXPECT_EQ(attempt.kept_step, 9);
  EXPECT_EQ(attempt.kept_tokens, 900);
  ASSERT_EQ(attempt.evaluations.size(), 1u);
  EXPECT_EQ(attempt.evaluations[0].bits_per_byte, 1.125);
  EXPECT_EQ(attempt.evaluations[0].sequences, 12);
  EXPECT_EQ(attempt.evaluations[0].all_sequences, 30);
  ASSERT_EQ(attempt.suites.size(), 1u);
  EXPECT_EQ(attempt.suites[0].phase, "p");
  EXPECT_EQ(attempt.suites[0].all_requests, 10);
  ASSERT_EQ(attempt.suites[0].scores.size(), 2u);
  EXPECT_EQ(attempt.suites[0].scores[0].error, 0.125);
  EXPECT_EQ(attempt.suites[0].scores[1].metric, "perplexity");
  EXPECT_LT(attempt.suites[0].scores[1].error, 0);
  ASSERT_EQ(history.decisions.size(), 1u);
  EXPECT_EQ(history.decisions[0].progress, 0.25);
  EXPECT_EQ(attempt.notes[0], "spike: step 7 skipped");
  EXPECT_EQ(history.damaged_lines, 0);
}

// A reader does not take the loss of an earlier step for that of the last one.
TEST(Ledger, ALossThatIsNotFiniteIsNoEarlierOne) {
  TemporaryFolder folder;
  HandClock clock;
  Ledger ledger(folder.path(), clock);
  ledger.begin(start_of(1));
  ledger.heartbeat(at(1, 1));
  AttemptProgress broken = at(2, 2);
  broken.loss = std::nan("");
  ledger.heartbeat(broken);
  EXPECT_FALSE(std::isfinite(read_ledger(folder.path()).attempts[0].last().loss));
  broken.loss = 0;  // not a step's
  ledger.heartbeat(broken);
  EXPECT_FALSE(std::isfinite(read_ledger(folder.path()).attempts[0].last().loss));
  ledger.heartbeat(at(3, 3));
  EXPECT_EQ(read_ledger(folder.path()).attempts[0].last().loss, 2.5);
}

TEST(Ledger, DeathIsChargedAndTheWorkAfterTheCheckpointIsLost) {
  TemporaryFolder folder;
  HandClock clock;
  {
    Ledger ledger(folder.path(), clock);
    ledger.begin(start_of(4));
    clock.now += 10;
    ledger.checkpoint({10, 1000, "step-10", 1, 0.5}, at(10, 10, 4));
    clock.now += 10;
    ledger.heartbeat(at(20, 20, 4));
  }
  clock.now += 1000;
  {
    Ledger ledger(folder.path(), clock);
    EXPECT_EQ(ledger.attempt(), 2);
    EXPECT_EQ(ledger.history().attempts.size(), 1u);
    EXPECT_DOUBLE_EQ(ledger.history().charged_gpu_seconds(), 4 * 21 + 4 * 5);  // and half a gap of 10 s
    ledger.begin(start_of(1, 10));
    clock.now += 30;
    ledger.checkpoint({20, 2000, "step-20", 1, 0.5}, at(20, 30));
    ledger.end("done", 0, "", at(20, 31));
  }
  const LedgerHistory history = read_ledger(folder.path());
  ASSERT_EQ(history.attempts.size(), 2u);
  EXPECT_EQ(history.attempts[0].state, AttemptState::died);
  EXPECT_EQ(history.attempts[0].kept_step, 10);
  EXPECT_DOUBLE_EQ(history.attempts[0].charged[Category::compute], 40);
  EXPECT_DOUBLE_EQ(history.attempts[0].charged[Category::lost], 40 + 20);
  EXPECT_DOUBLE_EQ(history.attempts[0].charged[Category::startup], 4);
  EXPECT_DOUBLE_EQ(history.charged_gpu_seconds(), 104 + 32);
  EXPECT_EQ(history.attempts[1].kept_tokens, 2000);
  double of_phases = 0;
  std::int64_t tokens = 0;
  for (const AttemptHistory& attempt : history.attempts) {
    for (const PhaseSpan& span : attempt.phases) {
      of_phases += span.gpu_seconds;
      tokens += span.tokens;
    }
  }
  EXPECT_DOUBLE_EQ(of_phases, history.charged_gpu_seconds());
  EXPECT_EQ(tokens, 2000) << "repeated tokens count once";
}

TEST(Ledger, AResumeFromAnOlderCheckpointLosesTheNewerOne) {
  TemporaryFolder folder;
  HandClock clock;
  for (const std::int64_t from : {0, 10}) {
    Ledger ledger(folder.path(), clock);
    ledger.begin(start_of(1, from));
    ledger.horizon({from, 0.1, 100, 1, 0});
    clock.now += 10;
    ledger.checkpoint({10, 1000, "step-10", 1, 0.5}, at(10, 10));
    ledger.horizon({15, 0.15, 90, 1, 0});
    clock.now += 10;
    ledger.checkpoint({20, 2000, "step-20", 1, 0.5}, at(20, 20));
    ledger.end("preempted", 75, "", at(20, 20));
    clock.now += 100;
  }
  const LedgerHistory history = read_ledger(folder.path());
  EXPECT_EQ(history.attempts[0].kept_step, 10);
  EXPECT_DOUBLE_EQ(history.attempts[0].charged[Category::lost], 10);
  EXPECT_EQ(history.attempts[1].kept_step, 20);
  EXPECT_DOUBLE_EQ(history.attempts[1].charged[Category::lost], 0);
  ASSERT_EQ(history.decisions.size(), 3u) << "the decision at step 15 of the first attempt is void";
  EXPECT_EQ(decisions_until(history, 10).size(), 2u);
}

TEST(Ledger, DeathWhileLoadingIsChargedAndVoidsNothing) {
  TemporaryFolder folder;
  HandClock clock;
  {
    Ledger ledger(folder.path(), clock);
    ledger.begin(start_of(1, -1));
    clock.now += 2;
    ledger.begin(start_of(1, 0));
    ledger.horizon({8, 0.1, 100, 1, 0});
    clock.now += 10;
    ledger.checkpoint({10, 1000, "step-10", 1, 0.5}, at(10, 10));
    ledger.end("preempted", 75, "", at(10, 11));
  }
  clock.now += 100;
  {
    Ledger ledger(folder.path(), clock);
    AttemptStart early = start_of(4, -1);
    early.cap = {};
    early.from_tokens = 0;
    ledger.begin(early);  // two seconds after the process began, and then it dies
  }
  const LedgerHistory history = read_ledger(folder.path());
  ASSERT_EQ(history.attempts.size(), 2u);
  EXPECT_EQ(history.attempts[0].kept_step, 10);
  EXPECT_EQ(history.attempts[0].start.from_step, 0);
  EXPECT_EQ(history.decisions.size(), 1u);
  EXPECT_EQ(history.attempts[1].kept_tokens, 1000);
  EXPECT_EQ(history.attempts[1].start.cap.gpu_hours, 0.05);
  EXPECT_DOUBLE_EQ(history.attempts[1].charged[Category::startup], 4 * (clock.now - clock.start));
  EXPECT_DOUBLE_EQ(history.charged()[Category::lost], 0);
}

// The one that writes may be the last that was started: the others' time before it is charged from the first line on.
TEST(Ledger, DeathWhileLoadingChargesTheHeadStartOfOtherRanks) {
  for (const double head_start : {45.0, -3.0, -1000.0}) {
    const TemporaryFolder folder;
    const HandClock clock;
    AttemptStart start = start_of(4, -1);
    start.head_start_gpu_seconds = head_start;
    Ledger(folder.path(), clock).begin(start);
    EXPECT_DOUBLE_EQ(read_ledger(folder.path()).charged()[Category::startup],
                     std::max(0.0, 4 * (clock.now - clock.start) + head_start));
  }
}

TEST(Ledger, ATornLastLineIsCut) {
  TemporaryFolder folder;
  HandClock clock;
  {
    Ledger ledger(folder.path(), clock);
    ledger.begin(start_of(1));
    ledger.heartbeat(at(3, 3));
  }
  const std::string whole = testing::read_text(folder / "ledger.jsonl");
  for (std::size_t length = 0; length <= whole.size(); ++length) {
    const LedgerHistory history = read_ledger_text(whole.substr(0, length), false);
    EXPECT_EQ(history.damaged_lines, 0) << length;
    const bool cut = length > 0 && whole[length - 1] != '\n';
    EXPECT_EQ(history.torn, cut && whole[length] != '\n') << length;
  }
  testing::write_text(folder / "ledger.jsonl", whole + "{\"kind\":\"heartb");
  {
    Ledger ledger(folder.path(), clock);
    EXPECT_EQ(ledger.attempt(), 2);
    ledger.begin(start_of(1));
    ledger.end("done", 0, "", at(3, 1));
  }
  const LedgerHistory history = read_ledger(folder.path());
  EXPECT_EQ(history.damaged_lines, 0);
  EXPECT_FALSE(history.torn);
  EXPECT_EQ(history.attempts.size(), 2u);
}

// An editor, or a copy, may lose the last byte: the line before it is whole, and no attempt died.
TEST(Ledger, ALastLineThatOnlyLacksItsLineFeedIsKept) {
  const TemporaryFolder folder;
  const HandClock clock;
  {
    Ledger ledger(folder.path(), clock);
    ledger.begin(start_of(1));
    ledger.end("done", 0, "", at(3, 4));
  }
  const std::string whole = testing::read_text(folder / "ledger.jsonl");
  testing::write_text(folder / "ledger.jsonl", whole.substr(0, whole.size() - 1));
  EXPECT_EQ(read_ledger(folder.path()).attempts[0].reason, "done");
  {
    Ledger ledger(folder.path(), clock);
    EXPECT_EQ(ledger.history().attempts[0].reason, "done");
    EXPECT_EQ(testing::read_text(folder / "ledger.jsonl"), whole);
    ledger.begin(start_of(1));
  }
  EXPECT_EQ(read_ledger(folder.path()).attempts.size(), 2u);
  // What is a value of JSON, and no line of ours, is damage: it is counted, and the next line begins behind it.
  testing::write_text(folder / "ledger.jsonl", whole + "{}");
  EXPECT_EQ(Ledger(folder.path(), clock).history().damaged_lines, 1);
  EXPECT_EQ(testing::read_text(folder / "ledger.jsonl"), whole + "{}\n");
}

// A line with a higher number would be damage to its own reader, and what it charges on no bill.
TEST(Ledger, NoAttemptHasANumberThatCannotBeRead) {
  const TemporaryFolder folder;
  const HandClock clock;
  const std::string last = line_of("attempt", kMostAttempt, ",\"ranks\":1");
  testing::write_text(folder / "ledger.jsonl", last);
  try {
    const Ledger ledger(folder.path(), clock);
    FAIL() << "attempt " << ledger.attempt();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    for (const char* part : {"ledger.jsonl: it holds attempt 1000000000", "put the file back from a copy"}) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(testing::read_text(folder / "ledger.jsonl"), last);
  testing::write_text(folder / "ledger.jsonl", line_of("attempt", kMostAttempt - 1, ",\"ranks\":1"));
  Ledger(folder.path(), clock).begin(start_of(1));
  EXPECT_EQ(read_ledger(folder.path()).attempts.back().attempt, kMostAttempt);
}

// A trial of speed, ended, failed or killed, leaves a run where it stands.
TEST(Ledger, ARunIsDoneUntilAnotherAttemptBegins) {
  const TemporaryFolder folder;
  const HandClock clock;
  const auto attempt = [&](std::int64_t from_step, const std::string& reason) {
    Ledger ledger(folder.path(), clock);
    ledger.begin(start_of(1, from_step));
    if (!reason.empty()) ledger.end(reason, 0, "", at(std::max<std::int64_t>(0, from_step), 4));
  };
  const auto history = [&] { return read_ledger(folder.path()); };
  EXPECT_FALSE(history().done());
  attempt(-1, std::string(kMeasuredOnly));
  EXPECT_FALSE(history().done());
  EXPECT_FALSE(history().attempts[0].begun);
  EXPECT_EQ(latest_of(history().attempts).attempt, 1);
  attempt(0, "done");
  for (const std::string& reason : {std::string(kMeasuredOnly), std::string("failed"), std::string()}) {
    attempt(-1, reason);
    EXPECT_TRUE(history().done()) << reason;
  }
  EXPECT_EQ(latest_of(history().attempts).attempt, 5);
  attempt(-1, std::string(kMeasuredOnly));
  EXPECT_EQ(latest_of(history().attempts).attempt, 5);
  attempt(3, "preempted");
  EXPECT_FALSE(history().done());
}

// The lines below were found by fuzzing: each ended the program, or took time or memory without bound.
TEST(Ledger, ACheckpointBeforeAnyProgress) {
  const LedgerHistory history =
      read_ledger_text(line_of("checkpoint", 1, ",\"checkpoint\":{\"step\":4,\"tokens\":400}"), false);
  ASSERT_EQ(history.attempts.size(), 1u);
  ASSERT_EQ(history.attempts[0].checkpoints.size(), 1u);
  EXPECT_EQ(history.attempts[0].kept_step, 4);
  EXPECT_EQ(history.charged_gpu_seconds(), 0);
}

TEST(Ledger, NestingIsRefusedBeforeItIsCopied) {
  for (const std::string open : {"[", "{\"a\":"}) {
    const std::string close = open == "[" ? "]" : "}";
    std::string deep;
    for (int level = 0; level < 100000; ++level) deep += open;
    deep += "0";
    for (int level = 0; level < 100000; ++level) deep += close;
    const LedgerHistory history = read_ledger_text(
        line_of("attempt", 1, ",\"ranks\":1,\"hardware\":" + deep) + line_of("note", 1, ",\"text\":\"on\""), false);
    EXPECT_EQ(history.damaged_lines, 1);
    EXPECT_EQ(history.attempts.size(), 1u);
  }
}

TEST(Ledger, ManyAttemptsEachTakeLittleOfTheOneBefore) {
  const std::string large(500000, 'x');
  std::string text =
      line_of("attempt", 1, ",\"ranks\":3,\"run\":\"" + large + "\",\"variants\":{\"op\":\"" + large + "\"}");
  constexpr int kAttempts = 5000;
  for (int attempt = 2; attempt <= kAttempts; ++attempt) text += line_of("note", attempt, "");
  for (int attempt = 2; attempt <= kAttempts; attempt += 977) text += line_of("note", attempt, ",\"text\":\"again\"");
  const LedgerHistory history = read_ledger_text(text, false);
  EXPECT_EQ(history.damaged_lines, 0);
  ASSERT_EQ(history.attempts.size(), static_cast<std::size_t>(kAttempts));
  std::size_t held = 0;
  for (int attempt = 1; attempt <= kAttempts; ++attempt) {
    const AttemptHistory& one = history.attempts[static_cast<std::size_t>(attempt - 1)];
    ASSERT_EQ(one.attempt, attempt);
    EXPECT_EQ(one.start.ranks, 3);
    held += one.start.run.size();
    for (const auto& [op, variant] : one.start.variants) held += op.size() + variant.size();
    EXPECT_EQ(one.notes.size(), attempt == 1 ? 0u : (attempt - 2) % 977 == 0 ? 2u : 1u);
  }
  EXPECT_LT(held, 10 * text.size());
}

TEST(Ledger, FiguresBeyondReasonAreDamage) {
  const std::string lines[] = {line_of("attempt", 1, ",\"ranks\":9007199254740993"),
                               line_of("attempt", 1, ",\"ranks\":0"),
                               line_of("attempt", 1, ",\"ranks\":1.5"),
                               line_of("attempt", 1, ",\"ranks\":1,\"head_start_gpu_seconds\":-1e300"),
                               line_of("attempt", 1, ",\"ranks\":1,\"parameters\":18446744073709551616"),
                               line_of("heartbeat", 1, ",\"step\":9223372036854775807,\"seconds\":{}"),
                               line_of("heartbeat", 2147483647, ",\"seconds\":{}"),
                               line_of("heartbeat", 1, ",\"mono\":2,\"seconds\":{}"),
                               "{\"kind\":\"heartbeat\",\"attempt\":1,\"mono\":1e300,\"wall\":1,\"seconds\":{}}\n"};
  for (const std::string& line : lines) EXPECT_EQ(read_ledger_text(line, false).damaged_lines, 1) << line;
}

TEST(Ledger, DamagedLinesAreCountedNotObeyed) {
  TemporaryFolder folder;
  HandClock clock;
  {
    Ledger ledger(folder.path(), clock);
    ledger.begin(start_of(1));
    ledger.heartbeat(at(3, 3));
    ledger.end("done", 0, "", at(3, 4));
  }
  const std::string whole = testing::read_text(folder / "ledger.jsonl");
  const auto second = whole.find('\n') + 1;
  const std::string junk[] = {
      "\n",
      "[]\n",
      "{}\n",
      "null\n",
      "{\"kind\":7}\n",
      std::string(2 << 20, 'x') + "\n",
      std::string(100000, '[') + "\n",
      std::string("\0\xff\n", 3),
      "{\"kind\":\"heartbeat\",\"attempt\":1,\"mono\":1,\"wall\":1,\"step\":-5,\"seconds\":{}}\n",
      "{\"kind\":\"heartbeat\",\"attempt\":1,\"mono\":1,\"wall\":1,\"seconds\":{\"compute\":-1}}\n",
      "{\"kind\":\"heartbeat\",\"attempt\":0,\"mono\":1,\"wall\":1,\"seconds\":{}}\n"};
  for (const std::string& line : junk) {
    const LedgerHistory history = read_ledger_text(whole.substr(0, second) + line + whole.substr(second), false);
    EXPECT_EQ(history.damaged_lines, 1) << line.substr(0, 60);
    EXPECT_EQ(history.charged_gpu_seconds(), 5) << line.substr(0, 60);
  }
  // Every single changed byte leaves something that can be read.
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 0x11);
    EXPECT_NO_THROW(read_ledger_text(changed, false)) << i;
  }
}

TEST(Ledger, OneWriterAtATime) {
  TemporaryFolder folder;
  HandClock clock;
  Ledger first(folder.path(), clock);
  try {
    Ledger second(folder.path(), clock);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("another process is running in"), std::string::npos);
  }
  first.begin(start_of(1));
  EXPECT_EQ(read_ledger(folder.path()).attempts[0].state, AttemptState::running);
}

TEST(Ledger, SurvivesKillMinusNine) {
  TemporaryFolder folder;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Ledger ledger(folder.path(), system_clock());
    ledger.begin(start_of(1));
    for (std::int64_t step = 1;; ++step) ledger.heartbeat(at(step, 1e-3 * static_cast<double>(step)));
  }
  while (read_ledger(folder.path()).attempts.empty() || read_ledger(folder.path()).attempts[0].points.size() < 20) {
    ::usleep(2000);
  }
  EXPECT_EQ(read_ledger(folder.path()).attempts[0].state, AttemptState::running);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  const Ledger next(folder.path(), system_clock());
  EXPECT_EQ(next.attempt(), 2);
  EXPECT_EQ(next.history().damaged_lines, 0);
  EXPECT_EQ(next.history().attempts[0].state, AttemptState::died);
  EXPECT_GE(next.history().attempts[0].points.size(), 20u);
  EXPECT_GT(next.history().charged()[Category::lost], 0);
}

TEST(Ledger, AFullDiskLeavesNoHalfLine) {
  TemporaryFolder folder;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    Ledger ledger(folder.path(), system_clock());
    ledger.begin(start_of(1));
    const rlimit limit{2000, 2000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      for (std::int64_t step = 1;; ++step) ledger.heartbeat(at(step, 1));
    } catch (const Error& error) {
      ::_exit(static_cast<int>(error.code()));
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 74);
  const LedgerHistory history = read_ledger(folder.path());
  EXPECT_FALSE(history.torn);
  EXPECT_EQ(history.damaged_lines, 0);
}

TEST(Ledger, HeartbeatsThinOutWithAge) {
  TemporaryFolder folder;
  HandClock clock;
  Ledger ledger(folder.path(), clock);
  ledger.begin(start_of(1));
  ledger.heartbeat(at(1, 1));
  EXPECT_FALSE(ledger.heartbeat_due());
  clock.now += 0.6;
  EXPECT_TRUE(ledger.heartbeat_due());
  clock.now += 86400;
  ledger.heartbeat(at(2, 2));
  clock.now += 20;
  EXPECT_FALSE(ledger.heartbeat_due());
  clock.now += 11;
  EXPECT_TRUE(ledger.heartbeat_due());
}

TEST(Ledger, WhatIsNoFileIsRefusedNotWaitedFor) {
  const TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "ledger.jsonl").c_str(), 0600), 0);
  try {
    read_ledger(folder.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("ledger.jsonl is not a regular file"), std::string::npos) << error.what();
  }
}

TEST(Ledger, AnUnwritableDirectoryIsAnIoError) {
  HandClock clock;
  try {
    Ledger ledger("/nonexistent/run", clock);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
  }
}

}  // namespace
}  // namespace shoestring
