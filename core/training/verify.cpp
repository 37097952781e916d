#include "core/training/verify.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "core/recipe/names.h"
#include "core/training/engine.h"
#include "core/training/signals.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/random.h"
#include "kernels/base/workers.h"
#include "parallel/communicator_threads.h"

namespace shoestring {
namespace {

constexpr std::int64_t kLayers = 8;
constexpr std::int64_t kVocabulary = 256;
constexpr std::int64_t kSequence = 16;

/// A batch of one process and of every layout that is compared with it.
struct BatchSize {
  int groups = 0;
  std::int64_t group_batches = 0;
  auto operator<=>(const BatchSize&) const = default;
};

/// As small as the layout allows: every place on the data axis takes a group, and DualPipeV two micro-batches of one
/// for each rank of a pipeline. Short of the largest layouts a rank has several groups, one after the other.
BatchSize batch_for(const MeshShape& shape) {
  const int least = shape.pipeline > 2 ? 2 : 4;
  return {std::max(least, shape.data), std::max(4, 2 * shape.pipeline)};
}

/// Tokens that follow from their sample's number, each sequence one document.
class MadeTokens final : public Feed {
 public:
  explicit MadeTokens(std::int64_t wrong_sample) : wrong_sample_(wrong_sample) {}

  BatchView next(SampleRange samples) override {
    if (samples.first == wrong_sample_) ++samples.first;
    const auto count = static_cast<std::size_t>(samples.count * kSequence);
    inputs_.resize(count);
    targets_.resize(count);
    starts_.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto at = static_cast<std::int64_t>(i);
      const auto place = static_cast<std::uint64_t>(samples.first * (kSequence + 1) + at / kSequence + at);
      inputs_[i] = static_cast<std::int32_t>(random_.below(place, kVocabulary));
      targets_[i] = static_cast<std::int32_t>(random_.below(place + 1, kVocabulary));
      starts_[i] = static_cast<std::int32_t>(at / kSequence * kSequence);
    }
    return {.inputs = inputs_, .targets = targets_, .segment_start = starts_, .sequence = kSequence};
  }

 private:
  std::int64_t wrong_sample_;
  Random random_{0, Purpose::sampling};
  std::vector<std::int32_t> inputs_, targets_, starts_;
};

using Hash = std::array<std::uint64_t, 2>;
/// Of "step 01 gradient TENSOR" and so on, in the order of the steps.
using Record = std::map<std::string, Hash>;

Hash hash_of(ConstTensorView view) {
  check(view.contiguous(), "{} is not dense", view.to_string());
  const XXH128_hash_t hash = XXH3_128bits(view.data, static_cast<std::size_t>(view.bytes()));
  return {hash.low64, hash.high64};
}

void note(const std::string& name, double value, Record& record) {
  record[name] = hash_of(view_of(&value, DType::f64, {1}));
}

/// Gradients that this rank has: of a tensor cut between ranks nobody has one, and that is a difference.
void note_tensors(const std::string& prefix, const Transformer& model, Optimizer& optimizer, const Engine& engine,
                  Record& record) {
  for (const Parameter* parameter : model.parameters()) {
    for (const ParameterSlice& slice : parameter->slices) {
      const auto rows = [&](const TensorView& whole) { return hash_of(whole.slice(0, slice.begin, slice.rows)); };
      const std::int64_t begin = slice.begin * parameter->columns;
      const bool own = engine.owns(*parameter, begin, slice.rows * parameter->columns);
      if (own && !parameter->grad.empty()) record[prefix + "gradient " + slice.name] = rows(parameter->grad);
      record[prefix + "weight " + slice.name] = rows(parameter->value);
    }
  }
  for (const OptimizerState& state : optimizer.state()) record[prefix + "state " + state.name] = hash_of(state.data);
}

void note_counts(const std::string& prefix, const PassResult& batch, Record& record) {
  if (!batch.router_counts.empty()) record[prefix + "router loads"] = hash_of(batch.router_counts);
  for (const auto& [name, counts] :
       {std::pair{"activations", &batch.precision.activations}, std::pair{"weights", &batch.precision.weights},
        std::pair{"gradients", &batch.precision.gradients}}) {
    const std::array all = {counts->elements, counts->saturated, counts->underflowed, counts->non_finite};
    record[fmt::format("{}quantised {}", prefix, name)] = hash_of(view_of(all.data(), DType::i64, {4}));
  }
}

/// How many layouts are through.
struct Through {
  std::ptrdiff_t done = 0;
  std::size_t all = 0;
};

/// Together, before each layout and each step; there is nothing to save.
void leave_if_asked(Communicator& team, const Through& layouts) {
  double asked = stop_requested() ? 1 : 0;
  if (team.size() > 1) team.all_reduce(view_of(&asked, DType::f64, {1}), Reduction::max);
  if (asked == 0) return;
  fail(ExitCode::preempted, "verify: left as asked after {} of {} layouts; run it again", layouts.done, layouts.all);
}

/// What one rank of a layout has after each step.
Record train(const Recipe& recipe, int steps, Communicator& world, const Through& layouts,
             const Tampering& tampering = {}) {
  const Layout layout = layout_of(recipe, world.rank(), world.size());
  const PhaseSpec& phase = recipe.phases.front();
  Mesh mesh(world, layout.shape);
  Workers workers(1);
  Stream stream(workers);
  TransformerOptions whole{.model = resolve_model(recipe.model, kVocabulary, kSequence),
                           .precision = recipe.precision,
                           .run = {phase.micro_batch * kSequence, phase.micro_batch, 1},
                           .own_stages = {}};
  const std::unique_ptr<ExpertExchange> exchange = exchange_of(layout, mesh, whole.model);
  Transformer model(part_of(std::move(whole), layout, exchange.get()));
  model.allocate(stream);
  model.initialise(recipe.run.seed);
  model.prepare();
  const auto optimizer = optimizer_of(recipe, model, mesh, 1);
  Meter meter(system_clock());
  MadeTokens feed(world.rank() + 1 == world.size() ? tampering.wrong_sample : -1);
  const int groups = reduction_groups(recipe, layout, 0);
  const BatchPlan plan(phase, groups, layout.shape.data);
  Engine engine(recipe, {model, *optimizer, stream}, mesh, groups, meter, layout.schedule);
  Record record;
  for (int step = 1; step <= steps; ++step) {
    leave_if_asked(world, layouts);
    const StepOutcome outcome = engine.step({.plan = plan,
                                             .feed = feed,
                                             .samples = phase.global_batch * (step - 1),
                                             .update = step,
                                             .learning_rate = recipe.schedule.learning_rate});
    if (tampering.after_step) tampering.after_step(layout, outcome.batch, model);
    const std::string prefix = fmt::format("step {:02} ", step);
    note(prefix + "balance loss", outcome.batch.balance_loss, record);
    note(prefix + "further loss", outcome.batch.further_loss, record);
    note(prefix + "gradient norm", outcome.gradient_norm, record);
    note(prefix + "loss", outcome.loss, record);
    note_counts(prefix, outcome.batch, record);
    note_tensors(prefix, model, *optimizer, engine, record);
  }
  return record;
}

/// The first of what any rank of `team` has otherwise than `alone`; what no rank has counts as different. Collective:
/// the same on every rank.
std::string difference(const Recipe& recipe, int steps, Communicator& team, const Record& alone, const Through& layouts,
                       const Tampering& tampering) {
  enum Mark : std::int64_t { absent, equal, other };
  const Record own = train(recipe, steps, team, layouts, tampering);
  std::vector<std::int64_t> marks;  // of what `alone` has, and last of what it has not
  for (const auto& [name, bytes] : alone) {
    const auto found = own.find(name);
    marks.push_back(found == own.end() ? absent : found->second == bytes ? equal : other);
  }
  const bool more =
      std::any_of(own.begin(), own.end(), [&](const auto& entry) { return !alone.contains(entry.first); });
  marks.push_back(more ? other : equal);
  team.all_reduce(view_of(marks.data(), DType::i64, {static_cast<std::int64_t>(marks.size())}), Reduction::max);
  std::string missing;
  auto mark = marks.begin();
  for (const auto& [name, bytes] : alone) {
    if (*mark == other) return name;
    if (*mark++ == absent && missing.empty()) missing = name + " (on no rank)";
  }
  return *mark == other ? "a tensor that one process does not have" : missing;
}

/// The same by threads of this process.
std::string difference(const Recipe& recipe, int steps, int ranks, const Record& alone, const Through& layouts,
                       const Tampering& tampering) {
  ThreadWorld world(ranks);
  std::mutex mutex;
  std::exception_ptr error;
  std::string first;
  const auto give_up = [&](ExitCode code, const std::string& why, const std::exception_ptr& thrown) {
    {
      const std::lock_guard lock(mutex);
      if (error == nullptr) error = thrown;
    }
    world.abort(code, why);
  };
  const auto run = [&](int rank) {
    try {
      const std::string found = difference(recipe, steps, *world.communicator(rank), alone, layouts, tampering);
      const std::lock_guard lock(mutex);
      first = found;
    } catch (const std::exception& exception) {
      give_up(ExitCode::bug, exception.what(), std::current_exception());
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(ranks));
  try {
    for (int rank = 0; rank < ranks; ++rank) threads.push_back(tampering.make([&run, rank] { run(rank); }));
  } catch (const std::exception& exception) {
    const Error refused = as_error(exception);
    const Error few(
        refused.code(),
        fmt::format("cannot make a thread for each of {} ranks, only for {} (verify fewer with --ranks): {}", ranks,
                    threads.size(), refused.what()));
    give_up(few.code(), few.what(), std::make_exception_ptr(few));
  }
  for (std::thread& thread : threads) thread.join();
  if (error != nullptr) std::rethrow_exception(error);
  return first;
}

}  // namespace

Recipe small_twin(const Recipe& recipe) {
  Recipe twin = recipe;
  ModelSpec& model = twin.model;
  const auto at_most = [](std::int64_t& value, std::int64_t most) { value = std::min(value, most); };
  model.vocabulary = kVocabulary;
  model.layers = kLayers;
  model.hidden = 128;
  model.kv_heads = model.kv_heads == 0 || model.kv_heads == model.heads ? 0 : 2;
  model.heads = 4;
  model.head_dim = model.kv_lora_rank > 0 ? 0 : 32;  // latent attention has its own
  model.feed_forward = 128;
  model.max_positions = std::max(kSequence, std::int64_t{64});
  at_most(model.rope_original_positions, kSequence);
  at_most(model.q_lora_rank, 64);
  at_most(model.kv_lora_rank, 64);
  at_most(model.qk_nope_head_dim, 32);
  at_most(model.qk_rope_head_dim, 32);
  at_most(model.v_head_dim, 32);
  at_most(model.experts, 16);
  at_most(model.experts_per_token, 4);
  at_most(model.expert_feed_forward, 128);
  at_most(model.dense_layers, 1);
  at_most(model.expert_groups, 4);
  at_most(model.expert_topk_groups, 2);
  twin.optimizer.muon_iterations = 1;
  PhaseSpec phase;
  phase.name = "verify";
  phase.sequence = kSequence;
  phase.micro_batch = 1;
  twin.phases = {phase};
  twin.parallel = {};
  return twin;
}

std::string small_twin_text(const Recipe& recipe) {
  const Recipe twin = small_twin(recipe);
  const ModelSpec& model = twin.model;
  std::string text = fmt::format("{} in small: {}, {} layers of {}", recipe.run.name, word(model.architecture),
                                 model.layers, model.hidden);
  if (model.experts > 0) {
    text +=
        fmt::format(" ({} dense), {} experts in {} groups, {} a token and {} shared", model.dense_layers, model.experts,
                    std::max<std::int64_t>(1, model.expert_groups), model.experts_per_token, model.shared_experts);
  }
  if (model.mtp_layers > 0) text += fmt::format(", {} for multi-token prediction", model.mtp_layers);
  text += fmt::format("; {}; {}", word(twin.precision.policy), word(twin.optimizer.name));
  if (twin.optimizer.name == OptimizerName::muon) {
    text += fmt::format(" with {} of {} iterations", twin.optimizer.muon_iterations, recipe.optimizer.muon_iterations);
  }
  return text;
}

std::vector<VerifiedLayout> layouts_to_verify(const Recipe& recipe, int most_ranks) {
  const std::int64_t experts = small_twin(recipe).model.experts;
  std::vector<VerifiedLayout> all;
  for (const int pipeline : {1, 2, 4}) {
    for (const int data : {1, 2, 4}) {
      if (pipeline * data == 1 || pipeline * data > most_ranks) continue;
      for (const int expert : {1, 2, 4}) {
        if (expert > 1 && (data % expert != 0 || experts == 0 || experts % expert != 0)) continue;
        for (const ScheduleName schedule : {ScheduleName::one_f_one_b, ScheduleName::interleaved, ScheduleName::zb_h1,
                                            ScheduleName::zb_v, ScheduleName::dualpipev}) {
          if (pipeline == 1 && schedule != ScheduleName::one_f_one_b) continue;
          all.push_back({.shape = {.data = data, .pipeline = pipeline, .expert = expert}, .schedule = schedule});
        }
        if (data == 1) continue;  // nobody to share with
        const ScheduleName schedule = pipeline == 1 ? ScheduleName::one_f_one_b : ScheduleName::dualpipev;
        all.push_back({.shape = {.data = data, .pipeline = pipeline, .expert = expert},
                       .schedule = schedule,
                       .shares_state = true});
      }
    }
  }
  return all;
}

std::vector<VerifiedLayout> verify_layouts(const Recipe& recipe, int steps, std::vector<VerifiedLayout> layouts,
                                           Communicator& world, const std::function<void(const VerifiedLayout&)>& done,
                                           const Tampering& tampering) {
  std::map<BatchSize, Record> alone;  // what one process has
  const auto verify = [&](const Recipe& twin, int ranks, const Record& expected, const Through& through) {
    if (world.size() == 1) return difference(twin, steps, ranks, expected, through, tampering);
    const std::unique_ptr<Communicator> team = world.split(world.rank() < ranks ? 0 : -1, world.rank(), "team");
    return team != nullptr ? difference(twin, steps, *team, expected, through, tampering) : std::string();
  };
  for (VerifiedLayout& layout : layouts) {
    const Through through{&layout - layouts.data(), layouts.size()};
    leave_if_asked(world, through);
    const BatchSize batch = batch_for(layout.shape);
    Recipe twin = small_twin(recipe);
    twin.phases.front().global_batch = batch.groups * batch.group_batches;
    twin.parallel.reduction_groups = batch.groups;
    if (!alone.contains(batch)) alone.emplace(batch, train(twin, steps, *self_communicator(), through));
    twin.parallel.pipeline = layout.shape.pipeline;
    twin.parallel.expert = layout.shape.expert;
    twin.parallel.schedule = layout.schedule;
    twin.parallel.shard_optimizer = layout.shares_state;
    layout.difference = verify(twin, layout.shape.ranks(), alone.at(batch), through);
    if (done && world.rank() == 0) done(layout);
  }
  return layouts;
}

}  // namespace shoestring
