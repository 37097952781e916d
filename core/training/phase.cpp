#include "core/training/phase.h"

#include <fmt/format.h>

#include "data/chat_tokens.h"

namespace shoestring {
namespace {

constexpr std::size_t kExampleTokens = 1000;

}  // namespace

Phase::Phase(const Recipe& recipe, RunResources& resources, Mesh& mesh, const Layout& layout,
             const TrainingState& state)
    : plan_(recipe.phases.at(static_cast<std::size_t>(state.phase)), state.reduction_groups, mesh.shape().data),
      loader_(resources.train_loader(state.phase)) {
  if (!state.data_plan.empty()) loader_->check_plan(state.data_plan);
  feed_ = std::make_unique<LoaderFeed>(*loader_, plan_, state.phase_samples, mesh.at().data, recipe.data.prefetch);
  if (!resources.suites(state.phase).empty()) {
    suites_ = std::make_unique<SuiteEvaluator>(resources.model(), mesh, resources.tokenizer(), resources.text_ids(),
                                               resources.suites(state.phase));
  }
  std::vector<std::unique_ptr<Loader>> held_out = resources.validation_loaders(state.phase);
  if (held_out.empty()) return;
  evaluator_ = std::make_unique<Evaluator>(resources.model(), mesh, std::move(held_out), recipe.evaluation,
                                           plan_.phase().micro_batch, layout.schedule);
}

std::string Phase::long_documents() const {
  std::int64_t all = 0, cut = 0, dropped = 0, tokens = 0;
  for (int source = 0; source < loader_->sources(); ++source) {
    const PackingCounts& counts = loader_->counts(source);
    all += counts.documents;
    cut += counts.truncated_documents;
    dropped += counts.dropped_documents;
    tokens += counts.dropped_tokens;
  }
  if (cut + dropped == 0) return {};
  return fmt::format("of {} documents {} are cut and {} dropped, {} tokens in all: they are longer than {} tokens", all,
                     cut, dropped, tokens, plan_.phase().sequence + 1);
}

std::string Phase::staged() const {
  const std::optional<StageCounts> counts = loader_->staged();
  if (!counts) return {};
  std::string text =
      fmt::format("{} of {} shards of phase {} are read from {}, {} bytes", counts->staged, counts->shards,
                  plan_.phase().name, loader_->options().stage->folder.string(), counts->staged_bytes);
  if (counts->too_many > 0) text += fmt::format("; for {} there is no room (data.stage_bytes)", counts->too_many);
  if (counts->failed > 0) text += fmt::format("; {} could not be copied: {}", counts->failed, counts->trouble);
  return text;
}

std::string Phase::given(std::int64_t samples) const {
  if (loader_->sources() == 1) return {};
  std::string text = fmt::format("phase {}, {} samples:", plan_.phase().name, samples);
  for (int source = 0; source < loader_->sources(); ++source) {
    const std::int64_t given = loader_->given(source, samples);
    text += fmt::format("{} {} from {} ({:.4g} epochs)", source == 0 ? "" : ",", given,
                        loader_->options().sources[static_cast<std::size_t>(source)].name,
                        static_cast<double>(given) / static_cast<double>(loader_->samples_per_epoch(source)));
  }
  return text;
}

std::string Phase::first_example(const Tokenizer& tokenizer) const {
  const Batch batch = loader_->fetch({0, 1});
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> learned;
  for (std::size_t t = 0; t < batch.inputs.size() && batch.segment_start[t] == 0 && t < kExampleTokens; ++t) {
    ids.push_back(batch.inputs[t]);
    learned.push_back(t > 0 && batch.targets[t - 1] >= 0 ? 1 : 0);
  }
  return marked_text(ids, learned, tokenizer, kLearnedBegin, kLearnedEnd);
}

}  // namespace shoestring
