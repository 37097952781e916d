#include "core/training/evaluation.h"

#include <gtest/gtest.h>

#include "tests/core/model/small_models.h"
#include "tests/core/training/layout_rank.h"
#include "tests/data/shard_fixture.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr std::int64_t kSequence = 12;
constexpr std::int64_t kMicroBatch = 2;

bool never() { return false; }

int asked = 0;  // a plain function is all that may stop an evaluation
bool at_fourth() { return ++asked == 4; }

class EvaluationTest : public ::testing::Test {
 protected:
  EvaluationTest() : config_(small_config(Architecture::llama)) {
    const auto vocabulary = static_cast<std::uint32_t>(config_.vocabulary);
    write_shard(folder_ / "held_out.h5", make_documents(40, 10, vocabulary, 1), vocabulary);
  }

  LoaderOptions options(const std::string& source = "held_out", LongDocuments what = LongDocuments::split) const {
    LoaderOptions result;
    result.long_documents = what;
    result.sources = {{source, {folder_ / (source + ".h5")}, 1}};
    result.sequence = kSequence;
    return result;
  }

  /// Evaluates on this rank's own model.
  Evaluator::Outcome evaluate(Communicator& world, std::int64_t tokens, bool (*may_stop)(), double most_seconds) const {
    SmallRun run(config_, policy(PrecisionPolicy::fp32), 1, kMicroBatch, kSequence);
    std::vector<std::unique_ptr<Loader>> loaders;
    loaders.push_back(std::make_unique<Loader>(options()));
    EvaluationSpec spec;
    spec.tokens = tokens;
    Mesh mesh(world, {.data = world.size()});
    Evaluator evaluator(run.model, mesh, std::move(loaders), spec, kMicroBatch);
    return evaluator.run(7, may_stop, most_seconds);
  }
  Evaluator::Outcome evaluate(std::int64_t tokens, bool (*may_stop)() = never, double most_seconds = 1e9) const {
    return evaluate(*self_communicator(), tokens, may_stop, most_seconds);
  }

  ModelConfig config_;
  ShardFolder folder_;
};

void expect_same(const EvaluationMetrics& a, const EvaluationMetrics& b) {
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.bits_per_byte, b.bits_per_byte);
}

TEST_F(EvaluationTest, IsTheSameOnAnyNumberOfRanks) {
  const Evaluator::Outcome alone = evaluate(0);
  EXPECT_TRUE(alone.whole);
  EXPECT_EQ(alone.metrics.step, 7);
  EXPECT_GT(alone.metrics.tokens, 300);
  // Random ids, a model without training: close to the logarithm of the vocabulary.
  EXPECT_NEAR(alone.metrics.loss, std::log(static_cast<double>(config_.vocabulary)), 0.5);
  for (const int ranks : {2, 3}) {
    run_ranks(ranks, [&](Communicator& world) { expect_same(evaluate(world, 0, never, 1e9).metrics, alone.metrics); });
  }
}

// Through pipelines of every kind, whose shares of the text are not equal.
TEST_F(EvaluationTest, IsTheSameThroughAPipeline) {
  const ModelConfig config = eight_layers(Architecture::llama);
  const auto evaluated = [&](Communicator& world, int pipeline, ScheduleName schedule) {
    LayoutRank rank(config, PrecisionPolicy::fp32, LayoutRank::recipe_of(config, pipeline, schedule), world);
    std::vector<std::unique_ptr<Loader>> loaders;
    loaders.push_back(std::make_unique<Loader>(options()));
    Evaluator evaluator(rank.model, rank.mesh, std::move(loaders), {}, 1, rank.layout.schedule);
    EXPECT_GT(evaluator.estimate_seconds(never), 0);
    return evaluator.run(7, never).metrics;
  };
  const EvaluationMetrics alone = evaluated(*self_communicator(), 1, ScheduleName::one_f_one_b);
  EXPECT_GT(alone.tokens, 300);
  for (const ScheduleName schedule : {ScheduleName::zb_h1, ScheduleName::dualpipev, ScheduleName::interleaved}) {
    run_ranks(4, [&](Communicator& world) { expect_same(evaluated(world, 2, schedule), alone); });
  }
}

// Ranks that share experts run every forward pass together, also those whose share of five sequences is the shorter
// one.
TEST_F(EvaluationTest, IsTheSameWithSharedExperts) {
  const ModelConfig config = eight_layers(Architecture::deepseek_v3);
  const auto evaluated = [&](Communicator& world, int pipeline, int expert) {
    const Recipe recipe = LayoutRank::recipe_of(config, pipeline, ScheduleName::zb_h1, expert);
    LayoutRank rank(config, PrecisionPolicy::bf16, recipe, world);
    std::vector<std::unique_ptr<Loader>> loaders;
    loaders.push_back(std::make_unique<Loader>(options()));
    EvaluationSpec spec;
    spec.tokens = 5 * kSequence;
    Evaluator evaluator(rank.model, rank.mesh, std::move(loaders), spec, 1, rank.layout.schedule);
    EXPECT_GT(evaluator.estimate_seconds(never), 0);
    const Evaluator::Outcome outcome = evaluator.run(7, never);
    EXPECT_EQ(outcome.sequences, 5);
    return outcome.metrics;
  };
  const EvaluationMetrics alone = evaluated(*self_communicator(), 1, 1);
  EXPECT_GT(alone.tokens, 30);
  run_ranks(2, [&](Communicator& world) { expect_same(evaluated(world, 1, 2), alone); });
  run_ranks(4, [&](Communicator& world) { expect_same(evaluated(world, 2, 2), alone); });
}

// Four of 31 micro-batches, one of each quarter.
TEST_F(EvaluationTest, CutShortItIsTheResultOfSequencesSpreadEvenly) {
  asked = -1;
  const Evaluator::Outcome cut = evaluate(0, at_fourth);
  EXPECT_TRUE(cut.stopped);
  EXPECT_FALSE(cut.whole);
  ASSERT_EQ((cut.all_sequences + kMicroBatch - 1) / kMicroBatch, 31);

  SmallRun run(config_, policy(PrecisionPolicy::fp32), 1, kMicroBatch, kSequence);
  const Loader loader(options());
  double loss = 0;
  std::int64_t tokens = 0;
  std::int64_t sequences = 0;
  for (const std::int64_t microbatch : {0, 8, 16, 24}) {
    const std::int64_t first = microbatch * kMicroBatch;
    const std::int64_t samples = std::min(kMicroBatch, cut.all_sequences - first);
    const Batch batch = loader.fetch({first, samples});
    const LossSum part = run.model.evaluate({.inputs = batch.inputs,
                                             .targets = batch.targets,
                                             .segment_start = batch.segment_start,
                                             .sequence = batch.sequence});
    loss += part.loss;
    tokens += part.tokens;
    sequences += samples;
  }
  EXPECT_EQ(cut.sequences, sequences);
  EXPECT_EQ(cut.metrics.tokens, tokens);
  EXPECT_DOUBLE_EQ(cut.metrics.loss, loss / static_cast<double>(tokens));
}

// Two sources, of which one is a fifth of the other: an evaluation that is cut has seen both.
TEST_F(EvaluationTest, CutShortItHasSeenEverySource) {
  const auto vocabulary = static_cast<std::uint32_t>(config_.vocabulary);
  write_shard(folder_ / "small.h5", make_documents(8, 10, vocabulary, 2), vocabulary);
  SmallRun run(config_, policy(PrecisionPolicy::fp32), 1, kMicroBatch, kSequence);
  const auto evaluated = [&](std::initializer_list<const char*> names, bool (*may_stop)()) {
    std::vector<std::unique_ptr<Loader>> loaders;
    for (const char* name : names) loaders.push_back(std::make_unique<Loader>(options(name)));
    const std::unique_ptr<Communicator> self = self_communicator();
    Mesh mesh(*self, {});
    return Evaluator(run.model, mesh, std::move(loaders), {}, kMicroBatch).run(7, may_stop).metrics;
  };
  asked = -6;  // after nine micro-batches
  const EvaluationMetrics both = evaluated({"held_out", "small"}, at_fourth);
  asked = -6;
  const EvaluationMetrics one = evaluated({"held_out"}, at_fourth);
  EXPECT_GT(both.tokens, 0);
  EXPECT_NE(both.loss, one.loss);
}

// Three bytes a token. Of most documents nothing or a tenth is looked at: the bytes of the rest do not count.
TEST_F(EvaluationTest, BytesAreThoseOfTheTextThatWasLookedAt) {
  const auto vocabulary = static_cast<std::uint32_t>(config_.vocabulary);
  Documents documents;
  for (std::uint32_t i = 0; i < 40; ++i) {
    std::vector<std::uint32_t>& document = documents.emplace_back();
    const std::uint32_t length = i < 20 ? 6 : 100;
    for (std::uint32_t t = 0; t < length; ++t) document.push_back(2 + (31 * i + 17 * t) % (vocabulary - 2));
  }
  write_shard(folder_ / "long.h5", documents, vocabulary);
  SmallRun run(config_, policy(PrecisionPolicy::fp32), 1, kMicroBatch, kSequence);
  const auto evaluated = [&](LongDocuments what, std::int64_t tokens) {
    std::vector<std::unique_ptr<Loader>> loaders;
    loaders.push_back(std::make_unique<Loader>(options("long", what)));
    const std::unique_ptr<Communicator> self = self_communicator();
    Mesh mesh(*self, {});
    EvaluationSpec spec;
    spec.tokens = tokens;
    return Evaluator(run.model, mesh, std::move(loaders), spec, kMicroBatch).run(7, never).metrics;
  };
  for (const LongDocuments what : {LongDocuments::split, LongDocuments::cut, LongDocuments::drop}) {
    for (const std::int64_t tokens : {std::int64_t{0}, 8 * kSequence}) {
      const EvaluationMetrics metrics = evaluated(what, tokens);
      // Without training every token takes the logarithm of the vocabulary, as the first ones do; a few have no bytes.
      const double bits = std::log2(static_cast<double>(vocabulary)) / 3;
      EXPECT_GT(metrics.tokens, 40);
      EXPECT_NEAR(metrics.bits_per_byte, bits, 0.25 * bits) << static_cast<int>(what) << ", " << tokens;
    }
  }
}

TEST_F(EvaluationTest, WithoutTimeItLooksAtNothing) {
  const Evaluator::Outcome outcome = evaluate(0, never, 0);
  EXPECT_FALSE(outcome.whole);
  EXPECT_FALSE(outcome.stopped);
  EXPECT_EQ(outcome.metrics.tokens, 0);
}

}  // namespace
}  // namespace shoestring
