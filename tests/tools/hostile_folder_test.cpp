// Model folders of strangers, each with one fault, given to every command that opens one: a message with file and place
// and exit code 65, in bounded memory.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "data/byte_characters.h"
#include "tests/tools/program.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::Ended;
using testing::read_text;
using testing::Workplace;
using testing::write_text;

constexpr std::int64_t kMostBytes = std::int64_t{1} << 30;  // of any command; half of what the largest fault asks for

/// Of the ByteLevel kind: a token for each byte, and the end of text.
json byte_level_file() {
  json vocabulary = json::object();
  const auto characters = byte_characters();
  for (std::size_t byte = 0; byte < characters.size(); ++byte) vocabulary[characters[byte]] = byte;
  return {{"added_tokens", {{{"id", 256}, {"content", "<|endoftext|>"}, {"special", true}, {"normalized", false}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}}}};
}

/// A small run's checkpoint as somebody else's folder, and copies of it.
class HostileFolder : public ::testing::Test {
 protected:
  static const Workplace& place() {
    static const Workplace workplace;
    static const bool made = [] {
      const Ended trained =
          workplace.run(workplace.train("source", "--phase.pretrain.steps=5 --schedule.warmup_steps=1"));
      EXPECT_EQ(trained.exit_code, 0) << trained.output;
      const fs::path sound = workplace.path() / "sound";
      fs::create_directories(sound);
      for (const char* file : {"config.json", "model.safetensors"}) {
        fs::copy(workplace.run_folder("source") / "checkpoints/step_00000005" / file, sound / file);
      }
      write_text(sound / "tokenizer.json", byte_level_file().dump());
      const Ended built = workplace.run("data build text --out own --tokenizer sound --hold-out 0.1 --threads 1");
      EXPECT_EQ(built.exit_code, 0) << built.output;
      write_text(
          workplace.path() / "suite.jsonl",
          R"({"task":"t","request_type":"loglikelihood","context":"a","continuation":"aaaaaaaaaaaaaaaaaaaaaaaaaa!"})"
          "\n");
      return true;
    }();
    EXPECT_TRUE(made);
    return workplace;
  }

  using Damage = std::function<void(const fs::path& folder)>;
  /// A copy with a fault.
  static void damage(const Damage& damage) {
    for (const char* made : {"other", "out", "runs/on_it"}) fs::remove_all(place().path() / made);
    const fs::path to = place().path() / "taken";
    fs::remove_all(to);
    fs::copy(place().path() / "sound", to);
    damage(to);
  }
  static void change_json(const fs::path& file, const std::function<void(json&)>& change) {
    json content = json::parse(read_text(file));
    change(content);
    write_text(file, content.dump());
  }
  /// model.safetensors with another header.
  static void change_header(const fs::path& folder, const std::function<void(json&)>& change) {
    const std::string bytes = read_text(folder / "model.safetensors");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    json header = json::parse(bytes.substr(sizeof length, length));
    const std::string data = bytes.substr(sizeof length + length);
    change(header);
    const std::string text = header.dump();
    length = text.size();
    std::string front(sizeof length, '\0');
    std::memcpy(front.data(), &length, sizeof length);
    write_text(folder / "model.safetensors", front + text + data);
  }

  /// Every one of `commands` refuses the folder, and says these things.
  static void refused(const std::vector<std::string>& commands, const std::vector<std::string>& said) {
    for (const std::string& command : commands) {
      const Ended ended = place().run(command, "timeout 100");
      EXPECT_EQ(ended.exit_code, 65) << command << "\n" << ended.output;
      for (const std::string& part : said) {
        EXPECT_NE(ended.output.find(part), std::string::npos) << command << ": no " << part << "\n" << ended.output;
      }
    }
    struct rusage used {};
    getrusage(RUSAGE_CHILDREN, &used);  // the largest of them
    EXPECT_LT(std::int64_t{used.ru_maxrss} * 1024, kMostBytes);
  }
};

const std::vector<std::string> kReadWeights = {
    "sample taken --prompt int --tokens 2 --threads 1", "evaluate taken --suite suite.jsonl --threads 1",
    "chat taken --format plain --threads 1", "export taken --format bf16 --out out",
    "train small.recipe --run.name=on_it --model.from=taken --data.train=own/train --data.validation=own/validation "
    "--phase.pretrain.steps=5 --schedule.warmup_steps=1"};
const std::vector<std::string> kReadText = {
    "sample taken --prompt aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa! --tokens 2 --threads 1",
    "evaluate taken --suite suite.jsonl --threads 1", "data build text --tokenizer taken --out other --threads 1"};

// Else the refusals below would say little.
TEST_F(HostileFolder, ASoundOneIsReadByAll) {
  damage([](const fs::path&) {});
  for (const std::vector<std::string>& commands : {kReadWeights, kReadText}) {
    for (const std::string& command : commands) {
      const Ended ended = place().run(command);
      EXPECT_EQ(ended.exit_code, 0) << command << "\n" << ended.output;
    }
  }
}

TEST_F(HostileFolder, AnIndexThatPointsOutside) {
  damage([](const fs::path& folder) {
    json index = {{"metadata", json::object()}, {"weight_map", {{"model.norm.weight", "../sound/model.safetensors"}}}};
    write_text(folder / "model.safetensors.index.json", index.dump());
  });
  refused(kReadWeights, {"taken/model.safetensors.index.json", "model.norm.weight", "no file of this folder"});
}

TEST_F(HostileFolder, TensorsThatOverlap) {
  damage([](const fs::path& folder) {
    change_header(folder, [](json& header) {
      header["model.norm.weight"]["data_offsets"] = header["model.layers.0.input_layernorm.weight"]["data_offsets"];
    });
  });
  refused(kReadWeights, {"taken/model.safetensors", "model.norm.weight"});
}

// The file is as long as it says; its zeros take no space on a disk.
TEST_F(HostileFolder, AHeaderOfTwoGigabytes) {
  damage([](const fs::path& folder) {
    write_text(folder / "model.safetensors", std::string("\0\0\0\x80\0\0\0\0{}", 10));
    fs::resize_file(folder / "model.safetensors", std::uintmax_t{3} << 30);
  });
  refused(kReadWeights, {"taken/model.safetensors", "header"});
}

// What is no file to read would be waited for.
TEST_F(HostileFolder, APipeForAFile) {
  for (const char* name : {"config.json", "model.safetensors"}) {
    damage([&](const fs::path& folder) {
      fs::remove(folder / name);
      ASSERT_EQ(mkfifo((folder / name).c_str(), 0600), 0);
    });
    refused(kReadWeights, {name, "not a regular file"});
  }
}

// A pair of nothing and a token gives that token, for ever.
TEST_F(HostileFolder, AMergeThatGoesInACircle) {
  damage([](const fs::path& folder) {
    change_json(folder / "tokenizer.json", [](json& file) {
      file["model"]["vocab"][""] = 257;
      file["model"]["merges"] = json::array({json::array({"", "a"})});
    });
  });
  refused(kReadText, {"taken/tokenizer.json", "model.merges[0]"});
}

TEST_F(HostileFolder, APatternThatBacktracksWithoutEnd) {
  damage([](const fs::path& folder) {
    change_json(folder / "tokenizer.json", [](json& file) {
      const json split = {{"type", "Split"}, {"pattern", {{"Regex", "(a+)+$"}}}, {"behavior", "Isolated"}};
      const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
      file["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}};
    });
  });
  write_text(place().path() / "text/0.c", std::string(64, 'a') + "!\n");
  refused(kReadText, {"taken/tokenizer.json", "pre_tokenizer", "gives up"});
}

TEST_F(HostileFolder, AVocabularyThatDoesNotFit) {
  damage([](const fs::path& folder) {
    change_json(folder / "config.json", [](json& config) { config["vocab_size"] = 100; });
  });
  refused({"sample taken --prompt int --tokens 2 --threads 1", "evaluate taken --suite suite.jsonl --threads 1",
           "chat taken --format plain --threads 1"},
          {"taken", "tokenizer.json", "257", "vocab_size = 100"});
}

TEST_F(HostileFolder, NoTemplateToChatBy) {
  damage([](const fs::path&) {});
  refused({"chat taken --threads 1"}, {"taken", "tokenizer_config.json", "--format"});
}

}  // namespace
}  // namespace shoestring
