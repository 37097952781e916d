// Whole attempts in this process, on a model of one layer.
#pragma once

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "core/recipe/parse.h"
#include "core/training/checkpoint.h"
#include "core/training/trainer.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tests/core/training/small_corpus.h"
#include "tests/support/temporary_folder.h"

namespace shoestring::testing {

/// A folder with shards and a recipe, and runs of it.
class SmallRuns : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    build_small_corpus(folder_->path());
    write_text(*folder_ / "r.recipe",
               fmt::format("{}[data]\ntrain = {}\n", kRecipe, (*folder_ / "shards/train").string()));
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::filesystem::path run_folder(const std::string& name) { return *folder_ / "runs" / name; }

  static Recipe recipe(const std::string& name, const std::vector<std::string>& overrides) {
    std::vector<std::string> all = {"--run.directory=" + run_folder(name).string()};
    all.insert(all.end(), overrides.begin(), overrides.end());
    return parse_recipe(*folder_ / "r.recipe", all).recipe;
  }

  static ExitCode train(const std::string& name, const std::vector<std::string>& overrides = {},
                        const TrainerOptions& options = {}, const Clock& clock = system_clock()) {
    const std::unique_ptr<Communicator> world = self_communicator();
    return train_on(*world, name, overrides, options, clock);
  }
  static ExitCode train_on(Communicator& world, const std::string& name, const std::vector<std::string>& overrides,
                           TrainerOptions options = {}, const Clock& clock = system_clock()) {
    static std::FILE* nowhere = std::fopen("/dev/null", "w");
    options.out = nowhere;
    return Trainer(recipe(name, overrides), world, clock, options).run();
  }

  static TrainerOptions beginning_anew() {
    TrainerOptions options;
    options.begin_anew = true;
    return options;
  }

  static Error error_of(const std::function<void()>& body) {
    try {
      body();
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "no error was thrown";
    return {ExitCode::done, ""};
  }

  static std::vector<nlohmann::json> metrics(const std::string& name) {
    std::istringstream text(read_text(run_folder(name) / "metrics.jsonl"));
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(text, line);) {
      lines.push_back(nlohmann::json::parse(line));
      lines.back().erase("timing");
    }
    return lines;
  }
  /// Whole lines so far: for who looks while they are written.
  static std::ptrdiff_t steps_written(const std::string& name) {
    const std::filesystem::path file = run_folder(name) / "metrics.jsonl";
    const std::string text = std::filesystem::exists(file) ? read_text(file) : "";
    return std::count(text.begin(), text.end(), '\n');
  }
  static std::vector<std::filesystem::path> checkpoints(const std::string& name) {
    return CheckpointStore(run_folder(name) / "checkpoints").all();
  }
  /// Of each file of weights: stages of a pipeline write one each.
  static std::vector<std::string> weights(const std::filesystem::path& checkpoint) {
    std::vector<std::filesystem::path> files = list_directory(checkpoint);
    std::sort(files.begin(), files.end());
    std::vector<std::string> hashes;
    for (const std::filesystem::path& file : files) {
      if (file.extension() == ".safetensors") hashes.push_back(hash_file(file));
    }
    EXPECT_FALSE(hashes.empty());
    return hashes;
  }

  inline static std::unique_ptr<TemporaryFolder> folder_;

 private:
  static constexpr const char* kRecipe = R"([run]
name = r
threads = 1
tensorboard = false
[budget]
gpu_hours = 10
[kernels]
allow_reference = yes
[model]
architecture = llama
layers = 1
hidden = 32
heads = 1
feed_forward = 32
init_std = 0.02
[precision]
policy = fp32
[parallel]
reduction_groups = 2
[schedule]
kind = constant
horizon = steps
learning_rate = 1e-3
[phase.pretrain]
sequence = 16
micro_batch = 1
global_batch = 2
steps = 12
)";
};

}  // namespace shoestring::testing
