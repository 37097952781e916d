#include "core/generation/open_model.h"

#include <algorithm>

#include "core/recipe/parse.h"
#include "core/training/import_weights.h"
#include "core/training/snapshot.h"
#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"
#include "kernels/base/variant.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Tokenizer> tokenizer_of(const fs::path& folder, const ModelConfig& config) {
  const fs::path file = find_tokenizer(folder);
  if (file.empty())
    fail(ExitCode::missing_input, "{}: holds no tokenizer file; copy it there, beside the weights", folder.string());
  std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(file);
  if (tokenizer->vocabulary_size() > static_cast<std::uint64_t>(config.vocabulary)) {
    fail(ExitCode::bad_data,
         "{}: {} has {} pieces, but config.json says vocab_size = {}: they belong to different models; put the "
         "tokenizer there that the model was trained with",
         folder.string(), tokenizer->file_name(), tokenizer->vocabulary_size(), config.vocabulary);
  }
  return tokenizer;
}

PrecisionSpec precision_of(const fs::path& folder, std::optional<PrecisionPolicy> wanted) {
  PrecisionSpec precision;
  precision.policy = PrecisionPolicy::bf16;
  const fs::path state = folder / "training/state.json";
  if (type_of(state) != fs::file_type::not_found) {
    precision = parse_recipe_text(Snapshots::state_of(folder).recipe, state.string()).recipe.precision;
  }
  if (wanted) precision.policy = *wanted;
  precision.count_saturation = false;
  return precision;
}

/// A JSON file of the folder; null where it is not there.
Json json_of(const fs::path& folder, const char* name) {
  const fs::path file = folder / name;
  if (type_of(file) == fs::file_type::not_found) return {};
  constexpr std::int64_t kMostBytes = std::int64_t{64} << 20;
  return parse_json(read_file(file, kMostBytes), file.string());
}

/// A token of tokenizer_config.json, as text or as an object; empty where it is neither.
std::string text_of_token(const Json* token) {
  if (token != nullptr && token->is_object()) token = token->find("content");
  return token != nullptr && token->is_text() ? token->text() : std::string();
}

/// The tokens that tokenizer.json's post-processor writes in front of a single text.
std::vector<std::string> leading_tokens(const Json& processor) {
  const Json* kind = processor.find("type");
  if (kind == nullptr || !kind->is_text()) return {};
  std::vector<std::string> found;
  if (kind->text() == "Sequence") {
    for (const Json& part : processor.at("processors").items()) {
      const std::vector<std::string> more = leading_tokens(part);
      found.insert(found.end(), more.begin(), more.end());
    }
  } else if (kind->text() == "TemplateProcessing") {
    for (const Json& part : processor.at("single").items()) {
      const Json* token = part.find("SpecialToken");
      if (token == nullptr) break;
      found.push_back(token->at("id").text());
    }
  }
  return found;
}

}  // namespace

OpenModel::OpenModel(const fs::path& folder, const OpenModelOptions& options)
    : precision_(precision_of(folder, options.policy)), workers_(options.threads), stream_(workers_) {
  allow_reference(!cpu_features().vectors());
  const ImportFolder files(folder);
  ModelConfig config = files.config();
  tokenizer_ = tokenizer_of(folder, config);
  find_ids(folder, files.facts());
  config.mtp_layers = 0;  // drafts are not made
  const std::int64_t positions = config.max_positions;
  const std::int64_t capacity = options.capacity > 0 ? std::min(options.capacity, positions) : positions;
  config.max_positions = capacity;  // no table for places that no text has
  model_ = std::make_unique<Transformer>(TransformerOptions{.model = config,
                                                            .precision = precision_,
                                                            .run = {.tokens = 1, .workers = workers_.count()},
                                                            .own_stages = {},
                                                            .count_precision = false,
                                                            .trains = false});
  const ImportPlan plan = plan_import(files, *model_);
  model_->allocate(stream_);
  import_weights(plan);
  model_->prepare();
  forward_ = std::make_unique<CachedForward>(
      *model_, CachedForwardOptions{.slots = options.slots,
                                    .capacity = capacity,
                                    .rows = std::max(options.slots, std::min(options.rows, options.slots * capacity)),
                                    .latents = options.latents && config.latent_attention});
}

void OpenModel::find_ids(const fs::path& folder, const ModelFileFacts& facts) {
  const auto stop = [&](std::int64_t id) {
    const bool known = id >= 0 && id < std::int64_t{tokenizer_->vocabulary_size()};
    const auto narrow = static_cast<std::int32_t>(id);
    if (known && std::find(stop_ids_.begin(), stop_ids_.end(), narrow) == stop_ids_.end()) stop_ids_.push_back(narrow);
  };
  stop(tokenizer_->special().end_of_document);
  for (const std::int64_t id : facts.eos_tokens) stop(id);
  const Json habits = json_of(folder, "generation_config.json");
  const Json* ends = habits.find("eos_token_id");
  if (ends != nullptr && ends->is_array()) {
    for (const Json& id : ends->items()) stop(id.whole());
  } else if (ends != nullptr && !ends->is_null()) {
    stop(ends->whole());
  }
  const Json tokenizer = json_of(folder, "tokenizer.json");
  const Json* processor = tokenizer.find("post_processor");
  std::vector<std::string> leading = processor == nullptr ? std::vector<std::string>() : leading_tokens(*processor);
  const Json settings = json_of(folder, "tokenizer_config.json");
  const Json* adds = settings.find("add_bos_token");
  const std::string begin = text_of_token(settings.find("bos_token"));
  if (adds != nullptr && adds->is_flag() && adds->flag() && leading.empty() && !begin.empty()) leading.push_back(begin);
  for (const std::string& content : leading) {
    const std::int32_t id = tokenizer_->control_id(content);
    if (id < 0) {
      fail(ExitCode::bad_data,
           "{}: the tokenizer puts {} in front of texts, but has no such token; copy its files again", folder.string(),
           Json(content).dump());
    }
    leading_ids_.push_back(id);
  }
  const std::int32_t named = begin.empty() ? -1 : tokenizer_->control_id(begin);
  const bool in_config = facts.bos_token >= 0 && facts.bos_token < std::int64_t{tokenizer_->vocabulary_size()};
  prefix_id_ = named >= 0  ? named
               : in_config ? static_cast<std::int32_t>(facts.bos_token)
                           : tokenizer_->special().end_of_document;
}

std::int64_t OpenModel::parameters() const {
  std::int64_t sum = 0;
  for (const Parameter* parameter : model_->parameters()) sum += parameter->elements();
  return sum;
}

std::vector<std::int32_t> OpenModel::prompt(std::string_view text) const {
  std::vector<std::uint32_t> encoded;
  tokenizer_->encode(text, encoded);
  std::vector<std::int32_t> ids = leading_ids_;
  for (const std::uint32_t id : encoded) ids.push_back(static_cast<std::int32_t>(id));
  if (ids.empty()) ids.push_back(tokenizer_->special().end_of_document);
  return ids;
}

}  // namespace shoestring
