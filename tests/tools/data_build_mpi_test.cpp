// data build as a user starts it: a file, a pipe, one process, several ranks, killed and gone on with: one folder.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

#include "tests/tools/program.h"

namespace shoestring {
namespace {

using testing::Ended;
using testing::read_text;
using testing::Workplace;
using testing::write_text;

class DataBuild : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    for (const char* name :
         {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_mpi_yield_when_idle"}) {
      setenv(name, "1", 1);
    }
    setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
    setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
  }
  DataBuild() {
    std::string lines;
    for (int i = 0; i < 3000; ++i) {
      lines += "{\"text\": \"record " + std::to_string(i * i % 9973) + " of " + std::to_string(i * 7919) +
               " goes with record " + std::to_string(i * 31 % 9973) + " of another\"}\n";
    }
    write_text(place.path() / "corpus.jsonl", lines);
  }
  static std::string build(const std::string& input, const std::string& out) {
    return "data build " + input + " --out " + out + " --source made --vocabulary 400 --shard-tokens 20000";
  }
  std::map<std::string, std::string> folder(const std::string& out) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(place.path() / out)) {
      if (!entry.is_regular_file()) continue;
      const std::string name = entry.path().lexically_relative(place.path() / out).string();
      if (name != "held_out.txt") files[name] = read_text(entry.path());  // it names the input
    }
    return files;
  }
  Workplace place;
};

TEST_F(DataBuild, RanksAndPipesGiveTheBytesOfOneProcess) {
  ASSERT_EQ(place.run(build("corpus.jsonl", "one")).exit_code, 0);
  EXPECT_GT(folder("one").size(), 4u);
  for (const int ranks : {2, 4}) {
    const std::string out = "of" + std::to_string(ranks);
    const Ended ended = place.run(build("corpus.jsonl", out), "mpirun -n " + std::to_string(ranks));
    ASSERT_EQ(ended.exit_code, 0) << ended.output;
    EXPECT_EQ(folder(out), folder("one")) << ranks << " ranks";
  }
  const std::map<std::string, std::string> piped = [&] {
    const Ended ended = place.run(build("-", "piped"), "cat corpus.jsonl |");
    EXPECT_EQ(ended.exit_code, 0) << ended.output;
    return folder("piped");
  }();
  EXPECT_EQ(piped.at("train/train-00000.h5"), folder("one").at("train/train-00000.h5"));
  const Ended early = place.run(build("-", "early"), "head -c 10000 corpus.jsonl |");
  EXPECT_EQ(early.exit_code, 65) << early.output;
  EXPECT_NE(early.output.find("standard input:"), std::string::npos) << early.output;
  EXPECT_FALSE(std::filesystem::exists(place.path() / "early"));
}

// What ends one rank ends all, with its exit code and its reason.
TEST_F(DataBuild, AFaultOfOneRankEndsAll) {
  write_text(place.path() / "bad.jsonl", read_text(place.path() / "corpus.jsonl") + "no json\n");
  const Ended ended = place.run(build("bad.jsonl", "bad"), "mpirun -n 3");
  EXPECT_EQ(ended.exit_code, 65) << ended.output;
  EXPECT_NE(ended.output.find("bad.jsonl"), std::string::npos) << ended.output;
  EXPECT_FALSE(std::filesystem::exists(place.path() / "bad"));
}

}  // namespace
}  // namespace shoestring
