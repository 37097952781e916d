#include "core/budget/run_summary.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "kernels/base/check.h"
#include "tests/core/budget/hand_clock.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

void write_run(const std::filesystem::path& folder, const std::string& run, const std::string& project, double price) {
  std::filesystem::create_directories(folder);
  testing::HandClock clock;
  Ledger ledger(folder, clock);
  AttemptStart start{.run = run,
                     .project = project,
                     .host = "",
                     .recipe_hash = "",
                     .build = "",
                     .variants = {},
                     .cap = {10, "budget.gpu_hours", 1},
                     .price = {},
                     .hardware = {}};
  if (price > 0) start.price = Price{price, "example", "2026-11-21"};
  ledger.begin(start);
  AttemptProgress progress;
  progress.step = 5;
  progress.tokens = 1000;
  progress.seconds[Category::compute] = 3600;
  ledger.checkpoint({5, 1000, "step_00000005", 1, 1}, progress);
  ledger.end("done", 0, "", progress);
}

TEST(RunSummary, AFolderIsSummedByProject) {
  testing::TemporaryFolder folder;
  write_run(folder / "a", "a", "first", 2);
  write_run(folder / "b", "b", "first", 0);
  write_run(folder / "c", "=c", "", 3);
  testing::write_text(folder / "notes" / "x", "not a run");
  const Folder runs = read_folder(folder.path());
  ASSERT_EQ(runs.runs.size(), 3u);
  ASSERT_EQ(runs.projects.size(), 2u);
  EXPECT_EQ(runs.projects[0].project, "=c");
  EXPECT_EQ(runs.projects[1].runs, 2);
  EXPECT_DOUBLE_EQ(runs.projects[1].gpu_hours, 2);
  EXPECT_DOUBLE_EQ(runs.projects[1].usd, 2);
  EXPECT_DOUBLE_EQ(runs.all().usd, 5);
  const auto document = nlohmann::json::parse(folder_json(runs));
  EXPECT_EQ(document["all"]["tokens"], 3000);
  EXPECT_TRUE(document["runs"][2]["usd"].is_null());
  EXPECT_NE(folder_text(runs).find("first"), std::string::npos);
  EXPECT_TRUE(folder_html(runs).ends_with("</html>\n"));

  const std::string csv = summaries_csv(runs.runs);
  EXPECT_TRUE(csv.starts_with("run,project,state,hardware,attempts,ranks,gpu_hours,"));
  EXPECT_NE(csv.find("\r\n\"'=c\",\"'=c\",\"done\",\"\",1,1,1,10,0,3,"), std::string::npos) << csv;
}

TEST(RunSummary, AFolderWithoutRunsIsMissingInput) {
  testing::TemporaryFolder folder;
  try {
    read_folder(folder.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
  }
}

}  // namespace
}  // namespace shoestring
