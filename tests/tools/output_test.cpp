// What the program writes where a user says, and what it does to what stands there.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <tuple>

#include "tests/tools/program.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::Ended;
using testing::read_text;
using testing::TrainedWorkplace;
using testing::Workplace;
using testing::write_text;

constexpr const char* kSuite =
    R"({"task":"a","request_type":"loglikelihood","context":"int","continuation":" x"}
{"task":"a","request_type":"loglikelihood","context":"float","continuation":" y"}
)";

class Output : public ::testing::Test {
 protected:
  static const Workplace& place() {
    static const TrainedWorkplace workplace("out");
    write_text(workplace.path() / "suite.jsonl", kSuite);
    return workplace;
  }
  static Ended evaluate(const std::string& options, const std::string& prefix = "") {
    return place().run("evaluate runs/out --threads 1 " + options, prefix);
  }
  static fs::path file(const std::string& name) { return place().path() / name; }
};

TEST_F(Output, APipeIsWrittenIntoAndALinkFollowed) {
  ASSERT_EQ(::mkfifo(file("pipe").c_str(), 0600), 0);
  fs::create_symlink("far.jsonl", file("link.jsonl"));
  const Ended ended = evaluate("--suite suite.jsonl --out pipe --samples link.jsonl", "cat pipe >read & exec");
  EXPECT_EQ(ended.exit_code, 0) << ended.output;
  EXPECT_TRUE(fs::is_fifo(file("pipe")));
  EXPECT_TRUE(fs::is_symlink(file("link.jsonl")));
  const std::string samples = read_text(file("far.jsonl"));
  EXPECT_EQ(std::count(samples.begin(), samples.end(), '\n'), 2) << samples;
  const Ended printed = evaluate("--suite suite.jsonl --out /proc/self/fd/1");
  EXPECT_EQ(printed.exit_code, 0);
  EXPECT_LT(printed.output.find("standard error"), printed.output.find("\"results\"")) << printed.output;
}

// The suite's last request has no room: known before the first is answered, and before anything is written.
TEST_F(Output, ARequestWithoutRoomIsRefusedBeforeAnyIsAnswered) {
  write_text(file("long.jsonl"), std::string(kSuite) + R"({"task":"b","request_type":"loglikelihood","context":"c",)" +
                                     R"("continuation":")" + std::string(70, 'x') + "\"}\n");
  write_text(file("kept.jsonl"), "kept");
  const Ended ended = evaluate("--suite long.jsonl --samples kept.jsonl");
  EXPECT_EQ(ended.exit_code, 64) << ended.output;
  EXPECT_NE(ended.output.find("request 3 (task b): a continuation takes 70 tokens"), std::string::npos) << ended.output;
  EXPECT_EQ(read_text(file("kept.jsonl")), "kept");
}

// Stopped in the middle: what was answered until then is there, in whole lines.
TEST_F(Output, SamplesComeAsTheyAreAnswered) {
  constexpr int kTimes = 20000;  // seconds of work
  std::string many;
  for (int i = 0; i < kTimes; ++i) many += kSuite;
  write_text(file("many.jsonl"), many);
  const Ended ended = evaluate("--suite many.jsonl --samples came.jsonl",
                               "( for i in $(seq 6000); do [ -s came.jsonl ] && break; sleep 0.01; done; "
                               "kill -TERM $(cat pid) ) & sh -c 'echo $$ >pid; exec \"$@\"' --");
  EXPECT_EQ(ended.exit_code, 128 + SIGTERM) << ended.output;
  const std::string lines = read_text(file("came.jsonl"));
  ASSERT_FALSE(lines.empty());
  EXPECT_EQ(lines.back(), '\n');
  EXPECT_LT(std::count(lines.begin(), lines.end(), '\n'), 2 * kTimes);
}

TEST_F(Output, TargetsAreLookedAtBeforeTheWork) {
  const std::string before = read_text(file("suite.jsonl"));
  for (const auto& [options, code, said] :
       {std::tuple{"--suite suite.jsonl --out suite.jsonl", 64, "--suite and --out are one file"},
        std::tuple{"--suite suite.jsonl --out r.json --samples ./r.json", 64, "--out and --samples are one file"},
        std::tuple{"--suite suite.jsonl --out absent/r.json", 74, "make its folder first"},
        std::tuple{"--suite suite.jsonl --samples text", 74, "is a folder; name a file in it for --samples"}}) {
    const Ended ended = evaluate(options);
    EXPECT_EQ(ended.exit_code, code) << ended.output;
    EXPECT_NE(ended.output.find(said), std::string::npos) << ended.output;
    EXPECT_EQ(ended.output.find("requests"), std::string::npos) << "after the work: " << ended.output;
  }
  EXPECT_EQ(read_text(file("suite.jsonl")), before);
  const std::string shard = "shards/train/train-00000.h5";
  const Ended over = place().run("data inspect " + shard + " --html " + shard);
  EXPECT_EQ(over.exit_code, 64) << over.output;
  EXPECT_EQ(place().run("data verify " + shard).exit_code, 0);
}

TEST_F(Output, ContextsThatAreCutAreCounted) {
  write_text(file("cut.jsonl"), std::string(kSuite) + R"({"task":"b","request_type":"loglikelihood","context":")" +
                                    std::string(70, 'c') + R"(","continuation":"x"})" + "\n");
  const Ended ended = evaluate("--suite cut.jsonl");
  EXPECT_EQ(ended.exit_code, 0) << ended.output;
  EXPECT_NE(ended.output.find("of 1 of 3 requests the beginning of the context is left out"), std::string::npos)
      << ended.output;
  EXPECT_EQ(evaluate("--suite suite.jsonl").output.find("left out"), std::string::npos);
}

TEST_F(Output, WhatAStrangerNamedSteersNoTerminal) {
  write_text(file("esc.jsonl"),
             R"({"task":"\u001b[2Jt","request_type":"loglikelihood","context":"a","continuation":"b"})"
             "\n");
  for (const Ended& ended : {evaluate("--suite esc.jsonl"), place().run("sample \"$(printf 'no\\033where')\"")}) {
    EXPECT_EQ(ended.output.find('\x1b'), std::string::npos) << ended.output;
    EXPECT_NE(ended.output.find("\\x1b"), std::string::npos) << ended.output;
  }
}

// Written into a closed stream; into a full one by the first write of a process that may write no file.
TEST_F(Output, WhatIsPrintedAndLostIsAnError) {
  for (const char* command :
       {"--help", "help", "--version", "completion bash", "train --help", "explain small.recipe"}) {
    const Ended closed = place().run(std::string(command) + " >&-");
    EXPECT_EQ(closed.exit_code, 74) << command << "\n" << closed.output;
    EXPECT_NE(closed.output.find("it is closed: let it lead to a file or a pipe"), std::string::npos) << closed.output;
    const Ended full = place().run(std::string(command) + " >nothing", "ulimit -f 0; exec");
    EXPECT_EQ(full.exit_code, 74) << command << "\n" << full.output;
  }
}

TEST_F(Output, HelpKnowsTheCommands) {
  for (const std::string command : {"train", "data build"}) {
    EXPECT_EQ(place().run("help " + command).output, place().run(command + " --help").output);
  }
  const Ended wrong = place().run("help trian");
  EXPECT_EQ(wrong.exit_code, 64);
  EXPECT_NE(wrong.output.find("did you mean 'train'"), std::string::npos) << wrong.output;
}

TEST_F(Output, ADeadLinkIsNotAnAbsentFile) {
  const fs::path from = place().run_folder("out") / "checkpoints/step_00000020";
  const fs::path folder = file("linked");
  for (const auto& [name, commands] :
       {std::pair{"generation_config.json", "sample linked --tokens 1;export linked --out none"},
        std::pair{"tokenizer_config.json", "sample linked --tokens 1;export linked --out none"},
        std::pair{"LICENSE", "export linked --out none"}}) {
    fs::remove_all(folder);
    fs::copy(from, folder, fs::copy_options::recursive);
    fs::remove(folder / name);
    fs::create_symlink("gone", folder / name);
    const std::string all = commands;
    for (std::size_t begin = 0; begin < all.size();) {
      const std::size_t end = std::min(all.find(';', begin), all.size());
      const Ended ended = place().run(all.substr(begin, end - begin));
      EXPECT_EQ(ended.exit_code, 66) << name << "\n" << ended.output;
      EXPECT_NE(ended.output.find(std::string(name) + ": is a link to gone"), std::string::npos) << ended.output;
      begin = end + 1;
    }
  }
  fs::remove_all(folder);
  fs::copy(from, folder, fs::copy_options::recursive);
  write_text(folder / "generation_config.json", "");
  for (const char* command : {"sample linked --tokens 1", "export linked --out none"}) {
    const Ended ended = place().run(command);
    EXPECT_EQ(ended.exit_code, 65) << ended.output;
    EXPECT_NE(ended.output.find("generation_config.json: is empty"), std::string::npos) << ended.output;
  }
}

TEST_F(Output, OnlyPrecisionsThatTextsAreWrittenInAreOffered) {
  const Ended ended = place().run("sample runs/out --precision fp64");
  EXPECT_EQ(ended.exit_code, 64) << ended.output;
  EXPECT_EQ(ended.output.find("fp64,"), std::string::npos) << ended.output;
  EXPECT_NE(ended.output.find("one of fp32, bf16"), std::string::npos) << ended.output;
}

}  // namespace
}  // namespace shoestring
