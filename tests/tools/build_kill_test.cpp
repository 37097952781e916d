// data build stopped at twenty random moments, killed or asked to leave, and started again each time.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <csignal>
#include <filesystem>

#include "kernels/base/random.h"
#include "tests/tools/program.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::Ended;
using testing::read_text;
using testing::Workplace;
using testing::write_text;

constexpr int kStops = 20;
constexpr int kMostStarts = 400;  // of builds that came to their end before the moment

std::string made_corpus() {
  std::string lines;
  for (int i = 0; i < 12000; ++i) {
    lines += fmt::format("{{\"text\": \"record {} of {} goes with record {} of another, and {} with none\"}}\n",
                         i * 31 % 9973, i * 7919, i * 17 % 9949, i % 577);
  }
  return lines;
}

std::map<std::string, std::string> files_in(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files[entry.path().lexically_relative(folder).string()] = read_text(entry.path());
  }
  return files;
}

TEST(BuildKill, TwentyStopsLeaveTheSameShards) {
  const Workplace place;
  write_text(place.path() / "corpus.jsonl", made_corpus());
  const auto build = [](const std::string& out) {
    return "data build corpus.jsonl --source made --vocabulary 400 --shard-tokens 20000 --out " + out;
  };
  const Ended undisturbed = place.run(build("undisturbed"));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.output;
  const auto expected = files_in(place.path() / "undisturbed");
  ASSERT_GT(expected.size(), 10u);

  const Random random(16, Purpose::test);
  double seconds = 0;
  int stops = 0, builds = 0;
  const auto finished = [&] {
    ++builds;
    EXPECT_EQ(files_in(place.path() / "stopped"), expected) << "build " << builds;
    EXPECT_FALSE(fs::exists(place.path() / "stopped.partial"));
    fs::remove_all(place.path() / "stopped");
  };
  for (int start = 0; stops < kStops; ++start) {
    ASSERT_LT(start, kMostStarts);
    const double moment = undisturbed.seconds * random.uniform(static_cast<std::uint64_t>(start));
    const bool killed = start % 3 != 0;
    const std::string prefix = fmt::format("timeout --preserve-status -s {} {:.3f}", killed ? "KILL" : "TERM", moment);
    const Ended ended = place.run(build("stopped"), prefix);
    seconds += ended.seconds;
    if (fs::exists(place.path() / "stopped")) {  // at its end, or killed right behind it
      finished();
      continue;
    }
    // A process that has not come to its signal handlers yet ends by the signal itself.
    EXPECT_TRUE(ended.exit_code == 128 + SIGKILL || ended.exit_code == 75 || ended.exit_code == 128 + SIGTERM)
        << ended.exit_code << ": " << ended.output;
    ++stops;
  }
  const Ended last = place.run(build("stopped"));
  seconds += last.seconds;
  ASSERT_EQ(last.exit_code, 0) << last.output;
  finished();
  const double lost = (seconds - builds * undisturbed.seconds) / kStops;
  RecordProperty("lost_seconds_a_stop", fmt::format("{:.3f}", lost));
  RecordProperty("undisturbed_seconds", fmt::format("{:.3f}", undisturbed.seconds));
  fmt::print("{} stops, {} builds: {:.3f} s lost a stop, of a build of {:.3f} s\n", kStops, builds, lost,
             undisturbed.seconds);
}

}  // namespace
}  // namespace shoestring
