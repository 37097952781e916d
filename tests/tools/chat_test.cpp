// Writing texts, talking and answering suites, as a user does them: with a small run, and with copies of its
// checkpoint.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
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

class Talk : public ::testing::Test {
 protected:
  static const Workplace& place() {
    static const TrainedWorkplace workplace("talking");
    return workplace;
  }
  /// What is answered to these lines, and at the end the text behind `printf`, escapes and all.
  static Ended chat(const std::string& lines, const std::string& options = "--format plain --tokens 6") {
    return place().run("chat runs/talking --temperature 0 --threads 1 " + options, "printf '" + lines + "' |");
  }
  static std::string sample(const std::string& options) {
    const Ended ended = place().run("sample runs/talking --temperature 0 --tokens 6 --threads 1 " + options);
    EXPECT_EQ(ended.exit_code, 0) << ended.output;
    return ended.output;
  }
};

// Nothing stands around a message in a plain format: the reply is how the text goes on.
TEST_F(Talk, AnswersEachLineOfAPipe) {
  const std::string text = sample("--prompt 'int value'");
  ASSERT_TRUE(text.starts_with("int value")) << text;
  const std::string reply = text.substr(9);
  const Ended one = chat("int value\\n", "--format plain --tokens 6 2>/dev/null");
  EXPECT_EQ(one.exit_code, 0);
  EXPECT_EQ(one.output, reply);
  EXPECT_EQ(chat("int value", "--format plain --tokens 6 2>/dev/null").output,
            reply);  // the last line's end is missing
  EXPECT_EQ(chat("int value\\n/new\\n\\nint value\\n/quit\\nmore\\n", "--format plain --tokens 6 2>/dev/null").output,
            reply + reply);
  const std::string both = chat("int value\\n = \\n", "--format plain --tokens 6 2>/dev/null").output;
  EXPECT_TRUE(both.starts_with(reply)) << both;
  EXPECT_GT(both.size(), reply.size());
}

TEST_F(Talk, SaysWhatItNeeds) {
  const Ended unknown = chat("a\\n", "");
  EXPECT_EQ(unknown.exit_code, 65) << unknown.output;
  EXPECT_NE(unknown.output.find("--format"), std::string::npos) << unknown.output;
  const Ended misspelt = chat("a\\n", "--format chatnl");
  EXPECT_EQ(misspelt.exit_code, 64) << misspelt.output;
  EXPECT_NE(misspelt.output.find("chatml"), std::string::npos) << misspelt.output;
  const Ended impossible = chat("a\\n", "--format chatml");
  EXPECT_EQ(impossible.exit_code, 65) << impossible.output;
  EXPECT_NE(impossible.output.find("<|im_"), std::string::npos) << impossible.output;
  for (const auto& [option, named] :
       {std::pair{"--top-p 0", "top_p"}, std::pair{"--min-p 2", "min-p"}, std::pair{"--precision fp4", "fp8_block"},
        std::pair{"--temperature x", "temperature"}}) {
    const Ended refused = place().run(std::string("sample runs/talking --prompt a ") + option);
    EXPECT_EQ(refused.exit_code, 64) << refused.output;
    EXPECT_NE(refused.output.find(named), std::string::npos) << refused.output;
  }
}

TEST_F(Talk, AMessageWithoutRoomIsSaidAndTheTalkGoesOn) {
  const Ended ended = chat("" + std::string(70, 'a') + "\\nint\\n", "--format plain --tokens 6");
  EXPECT_EQ(ended.exit_code, 64) << "for whoever reads the pipe: " << ended.output;
  EXPECT_NE(ended.output.find("takes 70 tokens"), std::string::npos) << ended.output;
  const std::string lines =
      chat("" + std::string(70, 'a') + "\\nint\\n", "--format plain --tokens 6 2>/dev/null").output;
  EXPECT_TRUE(lines.starts_with("\n")) << "a line for each message: " << lines;
  std::string reply = sample("--prompt int").substr(3);
  reply.pop_back();  // the end of its line: here what is said about the length stands before it
  EXPECT_NE(ended.output.find(reply), std::string::npos) << ended.output;
}

// A reply that would take minutes is stopped; the next line is answered.
TEST_F(Talk, CtrlCStopsAReplyAndNotTheProgram) {
  const fs::path to = place().run_folder("endless");
  fs::remove_all(to);
  fs::create_directories(to);
  fs::copy(place().run_folder("talking") / "checkpoints/step_00000020", to, fs::copy_options::recursive);
  const std::string config = read_text(to / "config.json");
  write_text(to / "config.json",
             std::regex_replace(config, std::regex("(\"max_position_embeddings\": )[0-9]+"), "$011048576"));
  const Ended ended =
      place().run("chat runs/endless --format plain --temperature 0 --threads 1 --context 200000 --tokens 100000",
                  "rm -f in pid out err; mkfifo in; "
                  "( exec 3>in; printf 'int\\n' >&3; "
                  "for i in $(seq 2000); do [ -s out ] && break; sleep 0.01; done; kill -INT $(cat pid); "
                  "for i in $(seq 2000); do grep -q stopped err && break; sleep 0.01; done; wc -c <out >size; "
                  "printf '/new\\nfloat\\n' >&3; "  // a line end may still be on its way
                  "for i in $(seq 2000); do [ $(wc -c <out) -gt $(($(cat size) + 3)) ] && break; sleep 0.01; done; "
                  "kill -INT $(cat pid) ) & "
                  "sh -c 'echo $$ >pid; exec \"$@\" <in >out 2>err' --");
  EXPECT_EQ(ended.exit_code, 0) << ended.output;
  const std::string said = read_text(place().path() / "err");
  EXPECT_EQ(std::count(said.begin(), said.end(), '('), 2) << said;
  EXPECT_NE(said.find("(stopped)\n(stopped)"), std::string::npos) << said;
}

TEST_F(Talk, ManyTextsAreThoseOfTheirSeeds) {
  const auto text_of = [&](int seed) {
    return place().run("sample runs/talking --prompt int --tokens 9 --threads 1 --seed " + std::to_string(seed)).output;
  };
  const Ended three = place().run("sample runs/talking --prompt int --tokens 9 --threads 1 --seed 4 --texts 3");
  EXPECT_EQ(three.exit_code, 0) << three.output;
  std::string expected;
  for (int i = 1; i <= 3; ++i) {
    expected += "---- " + std::to_string(i) + ", seed " + std::to_string(i + 3) + "\n" + text_of(i + 3);
  }
  EXPECT_EQ(three.output, expected);
  EXPECT_NE(text_of(4), text_of(5));
}

TEST_F(Talk, StopsBeforeATextAndSaysWhereRoomEnds) {
  const std::string whole = sample("--prompt 'int value'");
  const std::string stop = whole.substr(11, 2);
  const Ended cut = place().run(
      "sample runs/talking --prompt 'int value' --temperature 0 --tokens 6 --threads 1 --stop '" + stop + "'");
  EXPECT_EQ(cut.output, whole.substr(0, whole.find(stop, 9)) + "\n");
  const Ended full = place().run("sample runs/talking --prompt int --temperature 0 --tokens 500 --threads 1");
  EXPECT_EQ(full.exit_code, 0) << full.output;
  EXPECT_NE(full.output.find("64 positions"), std::string::npos) << full.output;
}

// The run's precision unless told otherwise: FP32 here, where BF16 has other probabilities.
TEST_F(Talk, EvaluatesASuite) {
  write_text(place().path() / "suite.jsonl",
             R"({"task":"code","request_type":"multiple_choice","context":"int value_","choices":["1","\u00e9\u00e9"],)"
             R"("gold":0,"delimiter":""})"
             "\n"
             R"({"task":"code","request_type":"multiple_choice","context":"int value_","choices":["1","\u00e9\u00e9"],)"
             R"("gold":1,"delimiter":""})"
             "\n"
             R"({"task":"text","request_type":"loglikelihood_rolling","text":"int value_3 = compute(17);"})"
             "\n"
             R"({"task":"go_on","request_type":"generate_until","context":"int val","target":"ue","until":["_"],)"
             R"("max_gen_toks":4})"
             "\n");
  const Ended ended =
      place().run("evaluate runs/talking --suite suite.jsonl --threads 1 --out results.json --samples samples.jsonl");
  ASSERT_EQ(ended.exit_code, 0) << ended.output;
  const auto results = nlohmann::json::parse(read_text(place().path() / "results.json"));
  EXPECT_EQ(results.at("config").at("precision"), "fp32");
  EXPECT_EQ(results.at("results").at("code").at("acc,none"), 0.5);
  EXPECT_EQ(results.at("results").at("code").at("acc_stderr,none"), 0.5);
  const double bits = results.at("results").at("text").at("bits_per_byte,none");
  EXPECT_GT(bits, 0.5);
  EXPECT_LT(bits, 8.1);
  EXPECT_EQ(results.at("results").at("text").at("bits_per_byte_stderr,none"), "N/A");
  const std::string samples = read_text(place().path() / "samples.jsonl");
  EXPECT_EQ(std::count(samples.begin(), samples.end(), '\n'), 4);
  const Ended rounded = place().run(
      "evaluate runs/talking --suite suite.jsonl --threads 1 --precision bf16 --task text --out other.json");
  ASSERT_EQ(rounded.exit_code, 0) << rounded.output;
  const auto other = nlohmann::json::parse(read_text(place().path() / "other.json")).at("results");
  EXPECT_EQ(other.size(), 1u);
  EXPECT_NE(other.at("text").at("bits_per_byte,none"), bits);
  EXPECT_NEAR(other.at("text").at("bits_per_byte,none"), bits, 0.05);
  const Ended none = place().run("evaluate runs/talking --suite suite.jsonl --task nothing");
  EXPECT_EQ(none.exit_code, 64) << none.output;
}

}  // namespace
}  // namespace shoestring
