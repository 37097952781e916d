#include "core/training/phase.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include "core/training/signals.h"
#include "data/chat_tokens.h"

namespace shoestring {
namespace {

constexpr std::size_t kExampleTokens = 1000;

}  // namespace

Phase::Phase(const Recipe& recipe, RunResources& resources, Mesh& mesh, const Layout& layout,
             const TrainingState& state, const StorageHooks& hooks)
    : plan_(recipe.phases.at(static_cast<std::size_t>(state.phase)), state.reduction_groups, mesh.shape().data) {
  const auto say = [this, hooks, trains = std::this_thread::get_id()](const std::string& line) {
    if (std::this_thread::get_id() != trains) return news_.add(line);
    if (hooks.say) hooks.say(line);
    if (hooks.waits) hooks.waits();
  };
  const ShardReading reading{
      .storage = hooks.storage,
      .patience = {.seconds = kStoragePatienceSeconds, .leave = stop_requested, .say = say, .left = hooks.left}};
  loader_ = resources.train_loader(state.phase, reading);
  if (!state.data_plan.empty()) loader_->check_plan(state.data_plan);
  feed_ = std::make_unique<LoaderFeed>(*loader_, plan_, state.phase_samples, mesh.at().data, recipe.data.prefetch,
                                       hooks, &news_);
  if (!resources.suites(state.phase).empty()) {
    suites_ = std::make_unique<SuiteEvaluator>(resources.model(), mesh, resources.tokenizer(), resources.text_ids(),
                                               resources.suites(state.phase), layout.schedule);
  }
  std::vector<std::unique_ptr<Loader>> held_out = resources.validation_loaders(state.phase, reading);
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

DataReading Phase::reading() const {
  DataReading reading = feed_->reading();
  if (const std::optional<StageCounts> counts = loader_->staged()) {
    reading.staged_bytes = counts->copied_bytes;
    reading.staged_seconds = counts->copied_seconds;
  }
  return reading;
}

DataReading reading_of_all(const DataReading& own, Communicator& world) {
  if (world.size() == 1) return own;
  struct Words {
    DataReading numbers() const {
      return {.wait_seconds = waited,
              .storage_bytes = storage_bytes,
              .storage_seconds = storage_seconds,
              .copy_bytes = copy_bytes,
              .copy_seconds = copy_seconds,
              .staged_bytes = staged_bytes,
              .staged_seconds = staged_seconds,
              .late = {}};
    }
    double waited = 0, storage_seconds = 0, copy_seconds = 0, staged_seconds = 0, late_seconds = 0;
    std::int64_t storage_bytes = 0, copy_bytes = 0, staged_bytes = 0;
    std::array<char, 512> late{};  // the end of its path, and a zero
  };
  static_assert(std::is_trivially_copyable_v<Words>);
  Words words{.waited = own.wait_seconds,
              .storage_seconds = own.storage_seconds,
              .copy_seconds = own.copy_seconds,
              .staged_seconds = own.staged_seconds,
              .storage_bytes = own.storage_bytes,
              .copy_bytes = own.copy_bytes,
              .staged_bytes = own.staged_bytes};
  if (!own.late.empty()) {
    const std::string& path = own.late.front().path;
    const std::size_t length = std::min(path.size(), words.late.size() - 1);
    std::memcpy(words.late.data(), path.data() + (path.size() - length), length);
    words.late_seconds = own.late.front().seconds;
  }
  std::vector<Words> all(static_cast<std::size_t>(world.size()));
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(Words));
  world.all_gather(view_of(static_cast<void*>(all.data()), DType::u8, {kBytes * world.size()}),
                   view_of(static_cast<const void*>(&words), DType::u8, {kBytes}));
  DataReading sum;
  for (const Words& one : all) {
    DataReading reading = one.numbers();
    if (one.late_seconds > 0) reading.late.push_back({one.late.data(), one.late_seconds});
    sum.add(reading, kLateShards);
  }
  return sum;
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
