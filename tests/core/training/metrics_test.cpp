#include "core/training/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

std::vector<nlohmann::json> lines_of(const std::filesystem::path& run) {
  std::istringstream text(read_text(run / "metrics.jsonl"));
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

StepMetrics at(std::int64_t step) {
  StepMetrics metrics;
  metrics.step = step;
  metrics.phase = "pretrain";
  metrics.loss = 3.0 / static_cast<double>(step);
  metrics.shares = {{"saturated.activation", 0.25}};
  return metrics;
}

TEST(Metrics, OneLineAStepWithExactNumbers) {
  const TemporaryFolder folder;
  MetricsLog log(folder.path(), 0, true, 1000);
  log.step(at(1));
  StepMetrics bad = at(2);
  bad.loss = NAN;
  bad.gradient_norm = std::numeric_limits<double>::infinity();
  bad.skipped = "loss nan";
  log.step(bad);
  log.evaluation({.step = 2, .tokens = 10, .loss = 1.5, .bits_per_byte = 0.7}, 1001);
  const auto lines = lines_of(folder.path());
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(std::stod(lines[0]["loss_hex"].get<std::string>()), 3.0);
  EXPECT_EQ(lines[0]["quantisation"]["saturated.activation"], 0.25);
  EXPECT_EQ(lines[1]["loss"], "nan");
  EXPECT_EQ(lines[1]["gradient_norm"], "inf");
  EXPECT_EQ(lines[2]["evaluation"]["bits_per_byte"], 0.7);
}

TEST(Metrics, ResumeDropsWhatWillBeDoneAgain) {
  const TemporaryFolder folder;
  {
    MetricsLog log(folder.path(), 0, false, 0);
    for (int step = 1; step <= 5; ++step) log.step(at(step));
  }
  write_text(folder / "metrics.jsonl", read_text(folder / "metrics.jsonl") + "{\"step\": 3, \"torn");
  {
    MetricsLog log(folder.path(), 3, false, 0);
    log.step(at(4));
  }
  const auto lines = lines_of(folder.path());
  ASSERT_EQ(lines.size(), 4u);
  for (std::size_t i = 0; i < lines.size(); ++i) EXPECT_EQ(lines[i]["step"], i + 1);
}

// The step is in a checkpoint, and nobody does it again.
TEST(Metrics, StepsWithoutALineAreCounted) {
  const TemporaryFolder folder;
  {
    MetricsLog log(folder.path(), 0, false, 0);
    EXPECT_EQ(log.missing_steps(), 0);
    for (const int step : {1, 2, 4}) log.step(at(step));
    log.evaluation({.step = 4, .tokens = 10, .loss = 1.5, .bits_per_byte = 0.7}, 1001);
  }
  EXPECT_EQ(MetricsLog(folder.path(), 6, false, 0).missing_steps(), 3);
  EXPECT_EQ(MetricsLog(folder.path(), 4, false, 0).missing_steps(), 1);
  EXPECT_EQ(MetricsLog(folder.path(), 2, false, 0).missing_steps(), 0);
}

TEST(Metrics, ALastLineThatOnlyLacksItsLineFeedIsKept) {
  const TemporaryFolder folder;
  {
    MetricsLog log(folder.path(), 0, false, 0);
    for (int step = 1; step <= 2; ++step) log.step(at(step));
  }
  const std::string whole = read_text(folder / "metrics.jsonl");
  // A blank line that goes makes the text as long as it was.
  for (const std::string& text : {whole, "\n" + whole}) {
    write_text(folder / "metrics.jsonl", text.substr(0, text.size() - 1));
    const MetricsLog log(folder.path(), 2, false, 0);
    EXPECT_EQ(read_text(folder / "metrics.jsonl"), whole);
  }
}

TEST(EventFile, KnownChecksumAndReadableRecords) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  const TemporaryFolder folder;
  {
    EventFile file(folder.path(), 1234.5, 21);
    file.scalars(1235.0, 7, {{"loss", 2.5}});
  }
  const std::string bytes = read_text(std::filesystem::directory_iterator(folder.path())->path());
  std::size_t at = 0;
  int records = 0;
  while (at < bytes.size()) {
    std::uint64_t length = 0;
    std::uint32_t check = 0;
    std::memcpy(&length, bytes.data() + at, 8);
    std::memcpy(&check, bytes.data() + at + 12 + length, 4);
    const std::uint32_t crc = crc32c(std::string_view(bytes).substr(at + 12, length));
    EXPECT_EQ(check, ((crc >> 15) | (crc << 17)) + 0xA282EAD8u);
    // Behind the version: a session that starts at step 21 (field 2), its status START (field 7). Readers drop what
    // other files have from there on.
    if (records == 1) {
      EXPECT_EQ(bytes.substr(at + 12 + 9, length - 9), "\x10\x15\x3A\x02\x08\x01");
    }
    at += 16 + length;
    ++records;
  }
  EXPECT_EQ(at, bytes.size());
  EXPECT_EQ(records, 3);
}

// A terminal that is gone (SIGHUP) must not keep a run from saving.
TEST(Progress, OutputThatCannotBeWrittenThrowsNothing) {
  std::FILE* full = std::fopen("/dev/full", "w");
  ASSERT_NE(full, nullptr);
  std::setvbuf(full, nullptr, _IONBF, 0);
  ProgressLine line(full, true);
  EXPECT_NO_THROW(line.say("saved"));
  EXPECT_NO_THROW(line.update("step 1", 10));
  std::fclose(full);
}

TEST(Progress, SaysWhatIsKnown) {
  ProgressFacts facts{.step = 12,
                      .loss = 2.25,
                      .tokens_per_second = 51234,
                      .spent_gpu_hours = 0.01,
                      .cap_gpu_hours = 0.05,
                      .usd = 0.004,
                      .usd_left = 0.016,
                      .held_out_loss = 2.125,
                      .seconds_left = 125,
                      .phase = "pretrain"};
  EXPECT_EQ(progress_text(facts),
            "pretrain step 12  loss 2.2500 (held out 2.1250)  51234 tokens/s  0.0100 of 0.0500 GPU-hours  $0.0040, "
            "$0.0160 left  2:05 left");
  facts.cap_gpu_hours = std::numeric_limits<double>::infinity();
  facts.usd_left = std::numeric_limits<double>::infinity();
  EXPECT_NE(progress_text(facts).find("0.0100 GPU-hours  $0.0040  2:05 left"), std::string::npos);
  facts.usd = 0;
  facts.held_out_loss = 0;
  facts.seconds_left = -1;
  EXPECT_EQ(progress_text(facts), "pretrain step 12  loss 2.2500  51234 tokens/s  0.0100 GPU-hours");
}

}  // namespace
}  // namespace shoestring
