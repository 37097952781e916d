#include "core/generation/open_model.h"

#include <algorithm>

#include "core/recipe/parse.h"
#include "core/training/import_weights.h"
#include "core/training/snapshot.h"
#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/file.h"
#include "kernels/base/presence.h"
#include "kernels/base/variant.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Tokenizer> tokenizer_of(const fs::path& folder, const ModelConfig& config) {
  const fs::path file = find_tokenizer(folder);
  if (file.empty())
    fail(ExitCode::missing_input, "{}: holds no tokenizer file; copy it there, beside the weights", folder.string());
  std::unique_ptr<Tokenizer> tokenizer = load_tokenizer_of_model(file, config.vocabulary);
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
  if (is_present(state)) {
    precision = parse_recipe_text(Snapshots::state_of(folder).recipe, state.string()).recipe.precision;
  }
  if (wanted) precision.policy = *wanted;
  // Trained in it, for tests: what writes texts has no rows for it.
  if (precision.policy == PrecisionPolicy::fp64) precision.policy = PrecisionPolicy::fp32;
  precision.count_saturation = false;
  return precision;
}

/// Of the folder; empty where it is not there.
std::string content_of(const fs::path& file) {
  constexpr std::int64_t kMostBytes = std::int64_t{64} << 20;
  if (!is_present(file)) return {};
  std::string content = read_file(file, kMostBytes);
  if (content.empty()) fail(ExitCode::bad_data, "{}: is empty; copy it again, or remove it", file.string());
  return content;
}

}  // namespace

OpenModel::OpenModel(const fs::path& folder, const OpenModelOptions& options)
    : precision_(precision_of(folder, options.policy)), workers_(options.threads), stream_(workers_) {
  allow_reference(!cpu_features().vectors());
  const ImportFolder files(folder);
  ModelConfig config = files.config();
  tokenizer_ = tokenizer_of(folder, config);
  ids_ = text_ids(*tokenizer_, folder.string(), [&](const std::string& name) { return content_of(folder / name); });
  if (options.say && !ids_.not_applied.empty()) options.say(ids_.not_applied);
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
  const CachedForwardOptions forward{.slots = options.slots,
                                     .capacity = capacity,
                                     .rows = std::max(options.slots, std::min(options.rows, options.slots * capacity)),
                                     .latents = options.latents && config.latent_attention};
  check_memory(options.memory ? *options.memory : memory_left(1), forward);
  model_->allocate(stream_);
  import_weights(plan, options.progress);
  model_->prepare();
  forward_ = std::make_unique<CachedForward>(*model_, forward);
}

// Else the system ends the process while it reads, in a control group without a word.
void OpenModel::check_memory(const MemoryLeft& left, const CachedForwardOptions& options) const {
  const auto gibibytes = [](std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); };
  const ModelMemory model = model_->memory();
  const std::int64_t texts = CachedForward::bytes(*model_, options);
  const std::int64_t needed = model.total() + texts;
  if (needed <= left.bytes) return;
  fail(ExitCode::io,
       "memory: the model needs {:.3g} GiB and can have {:.3g} ({}): weights {:.3g}, compute copies {:.3g}, what is "
       "kept of {} text{} of {} tokens {:.3g}. A smaller --context, or --latents where a model has them, keeps less of "
       "texts; the weights need a machine, or a limit, with more memory",
       gibibytes(needed), gibibytes(left.bytes), left.from, gibibytes(model.parameters), gibibytes(model.prepared),
       options.slots, options.slots == 1 ? "" : "s", options.capacity, gibibytes(texts));
}

std::int64_t OpenModel::parameters() const {
  std::int64_t sum = 0;
  for (const Parameter* parameter : model_->parameters()) sum += parameter->elements();
  return sum;
}

std::vector<std::int32_t> OpenModel::prompt(std::string_view text) const {
  std::vector<std::uint32_t> encoded;
  tokenizer_->encode_prompt(text, encoded);
  std::vector<std::int32_t> ids = ids_.leading;
  for (const std::uint32_t id : encoded) ids.push_back(static_cast<std::int32_t>(id));
  if (ids.empty()) ids.push_back(tokenizer_->special().end_of_document);
  return ids;
}

}  // namespace shoestring
