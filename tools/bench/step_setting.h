// What the suite `step` trains: a temporary folder with real tokens, and recipes over them.
//
// Text: the words, spaces and signs of the C headers under /usr/include, numbered in order of appearance, so that
// frequent ones have low ids as in a learned vocabulary. All sides read the same ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "core/recipe/recipe.h"

namespace shoestring {

/// A folder of its own, removed with everything in it.
class StepSetting {
 public:
  /// Throws Error(missing_input) where there is not enough text.
  StepSetting();
  ~StepSetting();
  StepSetting(const StepSetting&) = delete;
  StepSetting& operator=(const StepSetting&) = delete;

  static constexpr int kBatch = 4;
  static constexpr int kSequence = 256;
  static constexpr int kThreads = 2;

  std::filesystem::path file(const std::string& name) const { return folder_ / name; }
  /// The tokens as little-endian i32, for rivals.
  std::filesystem::path token_file() const { return file("tokens.bin"); }
  /// GPT-2 124M in Llama's form under `policy` ("fp8_block"): 12 layers, hidden 768, 12 heads, SwiGLU 2048, tied head,
  /// GPT-2's 50257 ids rounded up to 50304.
  Recipe dense(const std::string& policy) const;
  /// recipes/tiny_moe.recipe over this folder's tokens, folded into a vocabulary of 4096 as the demo has.
  Recipe tiny_moe() const;
  /// Writes `recipe` for `shoestring train`; returns the file.
  std::filesystem::path write(const Recipe& recipe, const std::string& name) const;

 private:
  Recipe with_data(Recipe recipe, std::uint32_t vocabulary) const;
  std::string shard(std::uint32_t vocabulary) const;
  void write_tokens();

  std::filesystem::path folder_;
};

/// A file that the build put beside the program, in bench/, or an installation in its share folder.
std::filesystem::path beside_program(const std::string& name);

}  // namespace shoestring
