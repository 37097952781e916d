// Snapshots by ranks as threads, over a small model, with a clock that the test holds in its hands.
#include "core/training/snapshot.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <mutex>

#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tests/core/model/small_models.h"
#include "tests/core/training/layout_rank.h"
#include "tests/core/training/made_feed.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;
namespace fs = std::filesystem;

void quiet(const std::string&) {}

/// What one rank saves and loads.
struct Rank {
  explicit Rank(const fs::path& root, Communicator& world)
      : run(small_config(Architecture::llama), policy(PrecisionPolicy::fp32)),
        optimizer(make_optimizer(OptimizerSpec{}, MomentFormat::f32, run.model.parameters(), 1)),
        tokenizer(byte_tokenizer()),
        mesh(world, {.data = world.size()}),
        snapshots(root, mesh, meter) {}
  SnapshotParts parts() { return {run.model, *optimizer, *tokenizer}; }
  void scale_weights(float factor) {
    const TensorView values = run.model.store().values;
    for (std::int64_t i = 0; i < values.elements(); ++i) values.as<float>()[i] *= factor;
  }
  Tensor weights() { return copy(run.model.store().values); }

  HeldClock clock;
  Meter meter{clock};
  SmallRun run;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Tokenizer> tokenizer;
  Mesh mesh;
  Snapshots snapshots;
};

/// Its state may be one that cannot be written.
class BrokenState : public Optimizer {
 public:
  BrokenState(Optimizer& sound, bool breaks) : sound_(sound), breaks_(breaks) {}
  void step(const OptimizerStep& step, Stream& stream) override { sound_.step(step, stream); }
  std::vector<OptimizerState> state() override {
    std::vector<OptimizerState> all = sound_.state();
    TensorView& first = all.front().data;  // every other row
    if (breaks_) first.strides[0] *= 2;
    return all;
  }
  std::int64_t state_bytes() const override { return sound_.state_bytes(); }

 private:
  Optimizer& sound_;
  bool breaks_;
};

TrainingState state_at(std::int64_t step) {
  TrainingState state;
  state.step = step;
  state.updates = step - 1;
  state.tokens = 10 * step;
  state.reduction_groups = 2;
  return state;
}

TEST(Snapshots, OneRankWritesAndEveryRankReads) {
  const TemporaryFolder folder;
  run_ranks(2, [&](Communicator& world) {
    Rank rank(folder / "checkpoints", world);
    EXPECT_EQ(rank.snapshots.writes(), world.rank() == 0);
    EXPECT_EQ(rank.snapshots.step(), -1);
    EXPECT_TRUE(rank.snapshots.newest(quiet).empty());
    const Tensor before = rank.weights();
    rank.clock.seconds = 7;
    const CheckpointCommit commit = rank.snapshots.save(rank.parts(), state_at(3), 2, quiet);
    EXPECT_EQ(commit.step, 3);
    EXPECT_EQ(commit.tokens, 30);
    EXPECT_EQ(commit.name, "step_00000003");
    EXPECT_EQ(commit.took_seconds, 0);
    EXPECT_EQ(rank.snapshots.step(), 3);
    EXPECT_EQ(rank.snapshots.saved_seconds(), 7);
    EXPECT_FALSE(rank.snapshots.writing());

    rank.scale_weights(2);
    const fs::path newest = rank.snapshots.newest(quiet);
    EXPECT_EQ(newest.filename(), "step_00000003");
    EXPECT_EQ(Snapshots::state_of(newest).updates, 2);
    EXPECT_FALSE(same_bits(rank.weights(), before));
    Snapshots::load(newest, rank.parts());
    EXPECT_TRUE(same_bits(rank.weights(), before));
  });
}

TEST(Snapshots, KeepsTheNewest) {
  const TemporaryFolder folder;
  const std::unique_ptr<Communicator> self = self_communicator();
  Rank rank(folder / "checkpoints", *self);
  for (const int step : {1, 2, 3}) rank.snapshots.save(rank.parts(), state_at(step), 2, quiet);
  EXPECT_EQ(rank.snapshots.store().all().size(), 2u);
  EXPECT_EQ(rank.snapshots.newest(quiet).filename(), "step_00000003");
}

// The others are gone: nobody is waited for.
TEST(Snapshots, OneRankSavesAlone) {
  const TemporaryFolder folder;
  run_ranks(2, [&](Communicator& world) {
    Rank rank(folder / "checkpoints", world);
    if (world.rank() != 0) return;
    EXPECT_EQ(rank.snapshots.save_alone(rank.parts(), state_at(5), 2, quiet).step, 5);
    EXPECT_EQ(rank.snapshots.step(), 5);
  });
  EXPECT_EQ(CheckpointStore(folder / "checkpoints").all().size(), 1u);
}

// A disk that takes nothing: the save is known not to have come to its end, so that nobody tries it again.
TEST(Snapshots, ASaveThatFailsIsRemembered) {
  const TemporaryFolder folder;
  write_text(folder / "checkpoints", "no folder");
  const std::unique_ptr<Communicator> self = self_communicator();
  Rank rank(folder / "checkpoints", *self);
  EXPECT_THROW(rank.snapshots.save(rank.parts(), state_at(1), 2, quiet), Error);
  EXPECT_TRUE(rank.snapshots.writing());
  EXPECT_EQ(rank.snapshots.step(), -1);
}

/// A number of ranks, and a recipe for them.
struct Case {
  int pipeline;
  int data;
  ScheduleName schedule;
  int expert = 1;
  bool shares_state = false;

  Recipe recipe(const ModelConfig& config) const {
    Recipe recipe = LayoutRank::recipe_of(config, pipeline, schedule, expert);
    recipe.parallel.shard_optimizer = shares_state;
    return recipe;
  }
  std::string text() const {
    return fmt::format("{} x {} (expert {}{})", pipeline, data, expert, shares_state ? ", state shared" : "");
  }
};
constexpr auto kPlain = ScheduleName::one_f_one_b;  // of a single stage: none
constexpr std::array kCases = {Case{1, 1, kPlain},
                               Case{1, 2, kPlain, 2, true},
                               Case{2, 1, ScheduleName::zb_v},
                               Case{2, 2, ScheduleName::zb_h1},
                               Case{2, 2, ScheduleName::zb_v, 2, true},
                               Case{4, 1, ScheduleName::dualpipev},
                               Case{4, 1, ScheduleName::interleaved},
                               Case{4, 2, ScheduleName::one_f_one_b, 2}};

/// Of weights and both moments, each tensor once, and the second names of multi-token prediction's tables.
std::int64_t whole_bytes(const ModelConfig& config) {
  const Transformer whole(
      {.model = config, .precision = policy(PrecisionPolicy::fp32), .run = {1, 1, 1}, .own_stages = {}});
  std::int64_t elements = 0;
  for (const Parameter* parameter : whole.parameters()) {
    elements += (parameter->role == ParameterRole::statistic ? 1 : 3) * parameter->elements();
  }
  return size_bytes(DType::f32) *
         (elements + static_cast<std::int64_t>(whole.aliases().size()) * config.vocabulary * config.hidden);
}

/// Samples of a step that the first stages drew, and how often.
using Drawn = std::map<std::int64_t, int>;

/// One step; what each rank has then, and what was drawn.
void step_and_note(LayoutRank& rank, int number, std::mutex& mutex, Record& record, Drawn& drawn) {
  rank.feed.asked.clear();
  const StepOutcome outcome = rank.step(number);
  const std::lock_guard lock(mutex);
  rank.note_state(record);
  record["loss"] = bytes_of(outcome.loss);
  if (rank.layout.at.pipeline != 0) return;
  for (const std::int64_t sample : rank.feed.asked) ++drawn[sample];
}

// The ranks of a pipeline and those that share experts write side by side, and whoever reads finds what is its own.
// Every layout goes on from every other's: the bits of one process, each sample once.
TEST(Snapshots, OfEachLayoutAreGoneOnFromUnderEveryOther) {
  const std::unique_ptr<Tokenizer> tokenizer = byte_tokenizer();
  const ModelConfig config = eight_layers(Architecture::deepseek_v3);
  Record expected;
  Drawn all;
  std::mutex mutex;
  {
    const std::unique_ptr<Communicator> self = self_communicator();
    LayoutRank alone(config, PrecisionPolicy::fp32, kCases[0].recipe(config), *self);
    alone.step(1);
    step_and_note(alone, 2, mutex, expected, all);
  }
  ASSERT_EQ(all.size(), static_cast<std::size_t>(LayoutRank::kGlobalBatch));
  for (const Case& from : kCases) {
    const TemporaryFolder folder;
    run_ranks(from.pipeline * from.data, [&](Communicator& world) {
      LayoutRank rank(config, PrecisionPolicy::fp32, from.recipe(config), world);
      Snapshots snapshots(folder / "checkpoints", rank.mesh, rank.meter);
      rank.step(1);
      const SnapshotParts parts{rank.model, *rank.optimizer, *tokenizer, nullptr, from.shares_state};
      const CheckpointCommit commit = snapshots.save(parts, state_at(1), 1, quiet);
      EXPECT_EQ(commit.bytes, whole_bytes(config)) << from.text();
    });
    for (const Case& to : kCases) {
      SCOPED_TRACE(fmt::format("{} gone on from as {}", from.text(), to.text()));
      Record record;
      Drawn drawn;
      run_ranks(to.pipeline * to.data, [&](Communicator& world) {
        LayoutRank rank(config, PrecisionPolicy::fp32, to.recipe(config), world);
        Snapshots snapshots(folder / "checkpoints", rank.mesh, rank.meter);
        Snapshots::load(snapshots.newest(quiet), {rank.model, *rank.optimizer, *tokenizer});
        rank.model.prepare();
        step_and_note(rank, 2, mutex, record, drawn);
      });
      EXPECT_TRUE(record == expected);
      EXPECT_EQ(drawn, all);
    }
  }
}

// A token table so large that ranks share its state: written in parts, read whole and in other parts.
TEST(Snapshots, OfStateInPartsAreReadByAnyNumberOfRanks) {
  const std::unique_ptr<Tokenizer> tokenizer = byte_tokenizer();
  ModelConfig config = small_config(Architecture::llama);
  config.vocabulary = 50000;
  Recipe recipe = LayoutRank::recipe_of(config, 1, kPlain);
  recipe.parallel.reduction_groups = 12;
  recipe.phases[0].global_batch = 12;
  recipe.parallel.shard_optimizer = true;
  for (const auto& [from, to] : {std::pair(4, 1), std::pair(4, 3), std::pair(1, 4)}) {
    const TemporaryFolder folder;
    Record written;
    std::mutex mutex;
    int parts = 0;
    const auto note = [&](LayoutRank& rank, Record& record) {  // by element, as it is read whole
      for (const OptimizerState& state : rank.optimizer->state()) {
        const std::string bytes = bytes_of(state.data);
        const std::lock_guard lock(mutex);
        parts += state.part ? 1 : 0;
        std::string& all = record[state.name];
        const std::size_t begin = static_cast<std::size_t>(state.begin) * sizeof(float);
        all.resize(std::max(all.size(), begin + bytes.size()));
        all.replace(begin, bytes.size(), bytes);
      }
    };
    run_ranks(from, [&](Communicator& world) {
      LayoutRank rank(config, PrecisionPolicy::fp32, recipe, world);
      Snapshots snapshots(folder / "checkpoints", rank.mesh, rank.meter);
      rank.step(1);
      note(rank, written);
      snapshots.save({rank.model, *rank.optimizer, *tokenizer, nullptr, true}, state_at(1), 1, quiet);
    });
    EXPECT_EQ(parts > 0, from > 1);
    Record read;
    run_ranks(to, [&](Communicator& world) {
      LayoutRank rank(config, PrecisionPolicy::fp32, recipe, world);
      Snapshots snapshots(folder / "checkpoints", rank.mesh, rank.meter);
      Snapshots::load(snapshots.newest(quiet), {rank.model, *rank.optimizer, *tokenizer});
      note(rank, read);
    });
    EXPECT_TRUE(read == written) << from << " to " << to;
  }
}

// One rank of a pipeline cannot write: all learn it, and nothing is committed.
TEST(Snapshots, WhatFailsOnOneRankFailsOnAll) {
  const std::unique_ptr<Tokenizer> tokenizer = byte_tokenizer();
  const ModelConfig config = eight_layers(Architecture::llama);
  const TemporaryFolder folder;
  const fs::path root = folder / "checkpoints";
  int failed = 0;
  std::mutex mutex;
  run_ranks(2, [&](Communicator& world) {
    LayoutRank rank(config, PrecisionPolicy::fp32, LayoutRank::recipe_of(config, 2, ScheduleName::zb_h1), world);
    Snapshots snapshots(root, rank.mesh, rank.meter);
    BrokenState broken(*rank.optimizer, world.rank() == 1);
    try {
      snapshots.save({rank.model, broken, *tokenizer}, state_at(1), 1, quiet);
    } catch (const Error& error) {
      const std::lock_guard lock(mutex);
      failed += error.code() == ExitCode::bug;
    }
  });
  EXPECT_EQ(failed, 2);
  EXPECT_TRUE(CheckpointStore(root).all().empty());
}

}  // namespace
}  // namespace shoestring
