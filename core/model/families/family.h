// What the name of an architecture means: which keys of [model] it has, what they must agree in, what layers they make.
//
// A new family is one file beside this one and one line in family.cpp's list; what several families share
// (grouped-query attention, a mixture of experts) is in parts.h. Its word in a recipe is that of its enumerator
// (core/recipe); what hugging_face_config.cpp reads and writes for every model is not repeated here.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/model/config.h"
#include "core/model/families/config_keys.h"

namespace shoestring {

/// Collects what is wrong with a model section; each finding names one key.
class Findings {
 public:
  void unless(bool holds, std::string_view key, std::string text);
  void range(std::string_view key, std::int64_t value, std::int64_t least, std::int64_t most);
  void positive(std::string_view key, double value);
  void not_negative(std::string_view key, double value);
  bool clean() const { return problems_.empty(); }
  std::vector<ConfigProblem> take() { return std::move(problems_); }

 private:
  std::vector<ConfigProblem> problems_;
};

/// Told of a weight matrix [rows, columns] that `key` makes.
using MatrixVisitor = std::function<void(std::string_view key, std::int64_t rows, std::int64_t columns)>;

struct Family {
  Architecture architecture;
  const char* class_name;           ///< config.json's `architectures`
  const char* also_read = nullptr;  ///< another `model_type` that is this family under conditions read_keys checks

  // Groups of keys that mean something; a recipe that gives another one is contradictory (core/recipe/validate).
  bool experts = false;
  bool latent_attention = false;
  bool further_tokens = false;

  /// What must hold beyond the checks that every model passes.
  void (*check)(const ModelSpec& spec, Findings& found);
  /// Names every weight matrix that `spec`, found clean, makes beside embedding, head and dense feed-forward.
  void (*matrices)(const ModelSpec& spec, const MatrixVisitor& matrix);
  /// Fills what ModelConfig has beyond ModelSpec, and the defaults that depend on the family.
  void (*resolve)(ModelConfig& config);

  /// The keys of a config.json beyond those of every model, into a spec that has the latter. What this program has no
  /// layer for is refused by name.
  void (*read_keys)(const ConfigKeys& keys, ModelSpec& spec);
  /// Adds them, as transformers writes them.
  void (*write_keys)(const ModelConfig& config, Json& keys);
};

/// In the order of the enumerators.
std::span<const Family* const> families();
const Family& family_of(Architecture architecture);

extern const Family kLlama;
extern const Family kQwen2;
extern const Family kQwen3;
extern const Family kQwen3Moe;
extern const Family kDeepSeekV2;
extern const Family kDeepSeekV3;

}  // namespace shoestring
