// Checkpoints whose files say different things of one model: refused with words before memory is taken or read past.
#include <gtest/gtest.h>

#include <regex>

#include "tests/tools/program.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::Ended;
using testing::read_text;
using testing::TrainedWorkplace;
using testing::Workplace;
using testing::write_text;

/// A run's checkpoint copied, with one number of its config.json changed.
class Sample : public ::testing::Test {
 protected:
  static const Workplace& place() {
    static const TrainedWorkplace workplace("sampled");
    return workplace;
  }
  static Ended sample_with(const std::string& key, const std::string& value) {
    const fs::path from = place().run_folder("sampled") / "checkpoints/step_00000020";
    const fs::path to = place().run_folder("changed");
    fs::remove_all(to);
    fs::create_directories(to);
    fs::copy(from, to, fs::copy_options::recursive);
    const std::string config = read_text(to / "config.json");
    const std::regex number("(\"" + key + "\": )[0-9]+");
    EXPECT_TRUE(std::regex_search(config, number)) << config;
    write_text(to / "config.json", std::regex_replace(config, number, "$01" + value));
    return place().run("sample runs/changed --prompt int --tokens 5 --threads 1");
  }
};

TEST_F(Sample, ATokenizerWithMorePiecesThanTheModelHasLogits) {
  const Ended ended = sample_with("vocab_size", "64");
  EXPECT_EQ(ended.exit_code, 65) << ended.output;
  EXPECT_NE(ended.output.find("vocab_size = 64"), std::string::npos) << ended.output;
}

TEST_F(Sample, AConfigurationLargerThanItsTensors) {
  const Ended ended = sample_with("intermediate_size", "16777216");
  EXPECT_EQ(ended.exit_code, 65) << ended.output;
  EXPECT_NE(ended.output.find("parameters"), std::string::npos) << ended.output;
}

TEST_F(Sample, PositionsThatTheTextNeverHasTakeNoMemory) {
  const Ended none = sample_with("max_position_embeddings", "0");
  EXPECT_EQ(none.exit_code, 65) << none.output;
  const Ended many = sample_with("max_position_embeddings", "1073741824");
  EXPECT_EQ(many.exit_code, 0) << many.output;
  EXPECT_EQ(many.output, place().run("sample runs/sampled --prompt int --tokens 5 --threads 1").output);
}

}  // namespace
}  // namespace shoestring
