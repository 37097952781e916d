// data build stopped at twenty random moments, killed or asked to leave, and started again each time.
//
// A kill comes at a random call that touches a file of the build (tools/campaign/faults.cpp), just before or just
// behind it: what is on the disk between two calls is what a build may be left with at any moment, whatever the
// machine's speed. A process that is asked to leave has no such places: it gets SIGTERM after a random part of the time
// that an undisturbed build takes, and whatever it is at then is right.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <csignal>
#include <filesystem>
#include <sstream>

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
constexpr int kMostStarts = 200;  // of builds that came to their end before the moment

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

/// Calls of an undisturbed build, by kind: "open", 57.
using Calls = std::vector<std::pair<std::string, std::uint64_t>>;

class BuildKill : public ::testing::Test {
 protected:
  BuildKill() { write_text(place_.path() / "corpus.jsonl", made_corpus()); }

  static std::string build(const std::string& out) {
    return "data build corpus.jsonl --source made --vocabulary 400 --shard-tokens 20000 --out " + out;
  }
  /// Stands before the command: a fault of tools/campaign/faults.cpp, or none.
  std::string watched(const std::string& fault) const {
    return fmt::format("env LD_PRELOAD='{}' SHOESTRING_FAULT_UNDER='{}' SHOESTRING_FAULT_MARK='{}' {}",
                       SHOESTRING_FAULTS, place_.path().string(), (place_.path() / "mark").string(),
                       fault.empty() ? fault : "SHOESTRING_FAULT=" + fault);
  }
  /// Those that touch files.
  Calls counted() const {
    Calls calls;
    std::istringstream words(read_text(place_.path() / "mark"));
    std::string kind;
    for (std::uint64_t number = 0; words >> kind >> number;) {
      const bool of_files =
          kind == "open" || kind == "write" || kind == "fsync" || kind == "rename" || kind == "unlink";
      if (of_files && number > 0) calls.emplace_back(kind, number);
    }
    return calls;
  }
  /// Number `start` of the moments.
  std::string moment(int start, const Calls& calls, double seconds) const {
    const Random random(16, Purpose::test, static_cast<std::uint32_t>(start));
    if (start % 3 == 0) {
      return fmt::format("timeout --foreground --preserve-status -s TERM {:.3f}", seconds * random.uniform(0));
    }
    const auto& [kind, number] = calls[static_cast<std::size_t>(start) % calls.size()];
    return watched(
        fmt::format("{}:{}:{}", kind, 1 + random.below(1, number), random.below(2, 2) == 0 ? "kill" : "killed"));
  }

  Workplace place_;
};

TEST_F(BuildKill, TwentyStopsLeaveTheSameShards) {
  const Ended undisturbed = place_.run(build("undisturbed"), watched(""));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.output;
  const Calls calls = counted();
  ASSERT_EQ(calls.size(), 5u) << read_text(place_.path() / "mark");
  const auto expected = files_in(place_.path() / "undisturbed");
  ASSERT_GT(expected.size(), 10u);

  double seconds = 0;
  int stops = 0, builds = 0;
  const auto finished = [&](const std::string& how) {
    ++builds;
    EXPECT_EQ(files_in(place_.path() / "stopped"), expected) << "build " << builds << ", " << how;
    EXPECT_FALSE(fs::exists(place_.path() / "stopped.partial"));
    fs::remove_all(place_.path() / "stopped");
  };
  for (int start = 0; stops < kStops; ++start) {
    ASSERT_LT(start, kMostStarts);
    const std::string how = moment(start, calls, undisturbed.seconds);
    const Ended ended = place_.run(build("stopped"), how);
    seconds += ended.seconds;
    // A process that has not come to its signal handlers yet ends by the signal itself.
    EXPECT_TRUE(ended.exit_code == 0 || ended.exit_code == 128 + SIGKILL || ended.exit_code == 75 ||
                ended.exit_code == 128 + SIGTERM)
        << how << ": " << ended.exit_code << ": " << ended.output;
    if (ended.exit_code != 0) ++stops;
    if (!fs::exists(place_.path() / "stopped")) continue;
    if (ended.exit_code != 0) {  // behind its end: the same command finds nothing to do
      const Ended again = place_.run(build("stopped"));
      EXPECT_EQ(again.exit_code, 64) << how << ": " << again.output;
    }
    finished(how);
  }
  const Ended last = place_.run(build("stopped"));
  seconds += last.seconds;
  ASSERT_EQ(last.exit_code, 0) << last.output;
  finished("undisturbed");
  const double lost = (seconds - builds * undisturbed.seconds) / kStops;
  RecordProperty("lost_seconds_a_stop", fmt::format("{:.3f}", lost));
  RecordProperty("undisturbed_seconds", fmt::format("{:.3f}", undisturbed.seconds));
  fmt::print("{} stops, {} builds: {:.3f} s lost a stop, of a build of {:.3f} s\n", kStops, builds, lost,
             undisturbed.seconds);
}

// The calls between which a build is neither what it was nor what it will be: each of them.
TEST_F(BuildKill, AtEveryChangeOfANameTheNextStartGoesOn) {
  const std::string small = "data build text --tokenizer bytes --hold-out 0.1 --threads 1 --shard-tokens 20000 --out ";
  const Ended undisturbed = place_.run(small + "undisturbed", watched(""));
  ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.output;
  const auto expected = files_in(place_.path() / "undisturbed");
  int killed = 0;
  for (const auto& [kind, number] : counted()) {
    if (kind != "rename" && kind != "unlink") continue;
    for (std::uint64_t call = 1; call <= number; ++call) {
      for (const char* when : {"kill", "killed"}) {
        const std::string how = fmt::format("{}:{}:{}", kind, call, when);
        const Ended ended = place_.run(small + "stopped", watched(how));
        ASSERT_EQ(ended.exit_code, 128 + SIGKILL) << how << ": " << ended.output;
        ++killed;
        const bool whole = fs::exists(place_.path() / "stopped");
        const Ended again = place_.run(small + "stopped");
        ASSERT_EQ(again.exit_code, whole ? 64 : 0) << how << ": " << again.output;
        ASSERT_EQ(files_in(place_.path() / "stopped"), expected) << how;
        ASSERT_FALSE(fs::exists(place_.path() / "stopped.partial")) << how;
        fs::remove_all(place_.path() / "stopped");
      }
    }
  }
  EXPECT_GT(killed, 20);
}

}  // namespace
}  // namespace shoestring
