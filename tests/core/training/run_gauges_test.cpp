#include "core/training/run_gauges.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <sstream>

#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

RunGauges gauges() {
  RunGauges g;
  g.run = "r\"\\\n{}";
  g.ranks = 2;
  g.step.attempt = 3;
  g.step.step = 7;
  g.step.tokens = 1000;
  g.step.gpu_hours = 0.25;
  g.step.loss = std::numeric_limits<double>::quiet_NaN();
  g.step.utilisation = {{"fp8", 0.5}, {"bf16", 0.25}};
  g.cap_gpu_hours = std::numeric_limits<double>::infinity();
  return g;
}

TEST(RunGauges, WhatIsNotKnownIsLeftOut) {
  const std::string text = gauges_text(gauges());
  for (const char* absent : {"cap_gpu_hours", "usd", "held_out", "seconds_left", "quantisation"}) {
    EXPECT_EQ(text.find(absent), std::string::npos) << absent << " in\n" << text;
  }
  RunGauges all = gauges();
  all.cap_gpu_hours = 1;
  all.step.usd = 2;
  all.evaluation = EvaluationMetrics{7, 100, 2.5, 1.25};
  all.seconds_left = 60;
  all.step.shares = {{"saturated.weight", 0.1}};
  for (const char* present : {"cap_gpu_hours", "usd_total", "held_out_loss", "seconds_left", "quantisation"}) {
    EXPECT_NE(gauges_text(all).find(present), std::string::npos) << present;
  }
}

// The grammar of the format: families begin with TYPE, samples of one family stand together, counters end in _total,
// labels are escaped, the last line is # EOF.
TEST(RunGauges, IsOpenMetrics) {
  std::istringstream lines(gauges_text(gauges()));
  std::string line;
  std::string family;
  std::string type;
  std::set<std::string> families;
  while (std::getline(lines, line) && line != "# EOF") {
    if (line.starts_with("# TYPE ")) {
      std::istringstream(line.substr(7)) >> family >> type;
      EXPECT_TRUE(families.insert(family).second) << family << " comes twice";
      continue;
    }
    if (line.starts_with("# HELP ")) {
      EXPECT_TRUE(line.substr(7).starts_with(family + " ")) << line;
      continue;
    }
    const std::string name = line.substr(0, line.find('{'));
    EXPECT_EQ(name, type == "counter" ? family + "_total" : family) << line;
    EXPECT_NE(line.find(R"({run="r\"\\\n{}",project="r\"\\\n{}")"), std::string::npos) << line;
  }
  EXPECT_EQ(line, "# EOF");
  EXPECT_FALSE(std::getline(lines, line));
  EXPECT_NE(gauges_text(gauges()).find("shoestring_loss{run=\"r\\\"\\\\\\n{}\",project=\"r\\\"\\\\\\n{}\"} NaN\n"),
            std::string::npos);
}

TEST(RunGauges, IsWrittenEveryTenSecondsAndComplainsOnce) {
  testing::TemporaryFolder folder;
  GaugesFile file(folder.path());
  RunGauges g = gauges();
  EXPECT_EQ(file.write(g, 100), "");
  const std::string first = testing::read_text(folder / "metrics.prom");
  g.step.step = 8;
  EXPECT_EQ(file.write(g, 109), "");
  EXPECT_EQ(testing::read_text(folder / "metrics.prom"), first);
  EXPECT_EQ(file.write(g, 110), "");
  EXPECT_NE(testing::read_text(folder / "metrics.prom"), first);

  GaugesFile nowhere(folder / "absent");
  EXPECT_NE(nowhere.write(g, 0), "");
  EXPECT_EQ(nowhere.write(g, 20), "");
}

}  // namespace
}  // namespace shoestring
