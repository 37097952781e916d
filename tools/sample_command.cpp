// shoestring sample CHECKPOINT
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "core/recipe/parse.h"
#include "core/training/import_weights.h"
#include "core/training/snapshot.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/file.h"
#include "kernels/base/random.h"
#include "kernels/base/variant.h"
#include "kernels/base/workers.h"
#include "tools/arguments.h"
#include "tools/commands.h"
#include "tools/model_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

void check_vocabulary(const fs::path& folder, const ModelConfig& config, const Tokenizer& tokenizer) {
  if (tokenizer.vocabulary_size() <= static_cast<std::uint64_t>(config.vocabulary)) return;
  fail(ExitCode::bad_data,
       "{}: {} has {} pieces, but config.json says vocab_size = {}: they belong to different models; put the tokenizer "
       "there that the model was trained with",
       folder.string(), tokenizer.file_name(), tokenizer.vocabulary_size(), config.vocabulary);
}

// As the run computes that left the folder; BF16 for folders that no run left.
PrecisionSpec precision_of(const fs::path& folder) {
  PrecisionSpec precision;
  precision.policy = PrecisionPolicy::bf16;
  const fs::path state = folder / "training/state.json";
  if (type_of(state) == fs::file_type::not_found) return precision;
  const std::string recipe = Snapshots::state_of(folder).recipe;
  precision = parse_recipe_text(recipe, state.string()).recipe.precision;
  precision.count_saturation = false;
  return precision;
}

// Draws from softmax(logits / temperature) cut to the k likeliest; ties and order by token id, so that a seed repeats.
std::int32_t draw(const std::vector<float>& logits, std::size_t vocabulary, double temperature, std::size_t top_k,
                  double uniform) {
  std::vector<std::int32_t> order(vocabulary);
  std::iota(order.begin(), order.end(), 0);
  const auto better = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)];
    const float y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  const std::size_t kept = std::clamp<std::size_t>(temperature == 0 ? 1 : top_k, 1, vocabulary);
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept), order.end(), better);
  if (kept == 1) return order[0];
  const double most = logits[static_cast<std::size_t>(order[0])];
  std::vector<double> weights(kept);
  for (std::size_t i = 0; i < kept; ++i) {
    weights[i] = std::exp((logits[static_cast<std::size_t>(order[i])] - most) / temperature);
  }
  double left = uniform * std::accumulate(weights.begin(), weights.end(), 0.0);
  for (std::size_t i = 0; i < kept; ++i) {
    left -= weights[i];
    if (left < 0) return order[i];
  }
  return order[kept - 1];
}

}  // namespace

int sample_command(const Words& words) {
  const Arguments arguments(
      {.command = "sample",
       .positional = "RUN-OR-CHECKPOINT",
       .summary = "Writes text from a model folder or the newest checkpoint of a run, computed as the run\n"
                  "computes; from folders that no run left, in BF16.",
       .options = {{"prompt", "TEXT", "what the text begins with"},
                   {"tokens", "N", "tokens to add at most (200)"},
                   {"temperature", "T", "0 takes the likeliest token (0.8)"},
                   {"top-k", "N", "of the N likeliest tokens only (50)"},
                   {"seed", "N", "another seed, another text (1)"},
                   {"threads", "N", "worker threads (all cores)"}},
       .least = 1,
       .most = 1},
      words);
  if (arguments.helped()) return 0;
  const std::int64_t count = arguments.integer("tokens", 200, 0, 1 << 20);
  const double temperature = arguments.real("temperature", 0.8, 0, 100, Unit::none);
  const auto top_k = static_cast<std::size_t>(arguments.integer("top-k", 50, 1, 1 << 20));
  const Random random(static_cast<std::uint64_t>(arguments.integer("seed", 1, 0, std::int64_t{1} << 62)),
                      Purpose::sampling);

  const fs::path checkpoint = model_folder_of(arguments.positional()[0]);
  const ImportFolder folder(checkpoint);
  ModelConfig config = folder.config();
  const fs::path file = find_tokenizer(checkpoint);
  if (file.empty()) fail(ExitCode::missing_input, "{}: holds no tokenizer file", checkpoint.string());
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(file);
  check_vocabulary(checkpoint, config, *tokenizer);

  std::vector<std::uint32_t> prompt;
  tokenizer->encode(arguments.text("prompt"), prompt);
  const std::int32_t end = tokenizer->special().end_of_document;
  std::vector<std::int32_t> ids;
  ids.reserve(prompt.size() + 1 + static_cast<std::size_t>(count));
  if (prompt.empty()) ids.push_back(end);  // a document begins where another ended
  for (const std::uint32_t id : prompt) ids.push_back(static_cast<std::int32_t>(id));

  allow_reference(!cpu_features().vectors());
  Workers workers(static_cast<int>(arguments.integer("threads", 0, 0, 1024)));
  Stream stream(workers);
  const std::int64_t window =
      std::min(config.max_positions, std::max<std::int64_t>(1, static_cast<std::int64_t>(ids.size()) + count));
  config.max_positions = window;  // no table or activation for places that this text never has
  const PrecisionSpec precision = precision_of(checkpoint);
  Transformer model({.model = config,
                     .precision = precision,
                     .run = {.tokens = window, .sequences = 1, .workers = workers.count()},
                     .stages = 1,
                     .own_stages = {},
                     .in_flight = {},
                     .count_precision = false});
  const ImportPlan plan = plan_import(folder, model);
  model.allocate(stream);
  import_weights(plan);
  model.prepare();

  const std::vector<std::int64_t>& ends = folder.facts().eos_tokens;
  fmt::print("{}", arguments.text("prompt"));
  for (std::int64_t i = 0; i < count; ++i) {
    const std::size_t begin =
        ids.size() > static_cast<std::size_t>(window) ? ids.size() - static_cast<std::size_t>(window) : 0;
    const std::vector<float> logits = model.next_token_logits(std::span(ids).subspan(begin));
    const std::int32_t id =
        draw(logits, tokenizer->vocabulary_size(), temperature, top_k, random.uniform(static_cast<std::uint64_t>(i)));
    if (id == end || std::find(ends.begin(), ends.end(), id) != ends.end()) break;
    ids.push_back(id);
    fmt::print("{}", tokenizer->decode(std::span(&id, 1)));
    std::fflush(stdout);
  }
  fmt::print("\n");
  return 0;
}

}  // namespace shoestring
