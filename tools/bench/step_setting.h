// What the suite `step` trains: a temporary folder with real tokens, and recipes over them.
//
// Text: the words, spaces and signs of the C headers under /usr/include, numbered in order of appearance, so that
// frequent ones have low ids as in a learned vocabulary. All sides read the same ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/recipe/recipe.h"
#include "tools/bench/bench_folder.h"

namespace shoestring {

/// A dense model in Llama's form (SwiGLU, RMSNorm, rotary positions, tied head), and its batch: what rivals train too.
struct StepModel {
  std::string_view name;
  int batch;
  int sequence;
  int layers;
  int hidden;
  int heads;
  int kv_heads;
  int feed_forward;
  int vocabulary;
  int rounds;  ///< measured steps of each
};
inline constexpr StepModel kGpt2Shape{"gpt2_124m", 4, 256, 12, 768, 12, 12, 2048, 50304, 3};
/// That of recipes/tiny_dense.recipe.
inline constexpr StepModel kTinyDense{"tiny_dense", 4, 512, 6, 256, 4, 2, 768, 4096, 15};

/// A folder of its own, removed with everything in it.
class StepSetting {
 public:
  /// Throws Error(missing_input) where there is not enough text.
  StepSetting();

  static constexpr int kThreads = 2;

  std::filesystem::path file(const std::string& name) const { return folder_ / name; }
  /// The tokens that `model` trains on, as little-endian i32, for rivals.
  std::filesystem::path token_file(const StepModel& model) const;
  /// `model` under `policy` ("fp8_block").
  Recipe dense(const StepModel& model, const std::string& policy) const;
  /// recipes/tiny_moe.recipe over this folder's tokens, folded into a vocabulary of 4096 as the demo has.
  Recipe tiny_moe() const;
  /// Writes `recipe` for `shoestring train`; returns the file.
  std::filesystem::path write(const Recipe& recipe, const std::string& name) const;

 private:
  Recipe with_data(Recipe recipe, int vocabulary) const;
  std::string shard(int vocabulary) const;
  void write_tokens();

  BenchFolder folder_;
};

/// A file that the build put beside the program, in bench/, or an installation in its share folder.
std::filesystem::path beside_program(const std::string& name);

}  // namespace shoestring
