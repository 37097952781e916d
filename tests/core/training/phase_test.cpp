#include "core/training/phase.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "tests/core/training/small_corpus.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

using testing::TemporaryFolder;

constexpr std::int64_t kGlobalBatch = 4;
constexpr std::int64_t kMicroBatch = 2;

class PhaseTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    testing::build_small_corpus(folder_->path());
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static Recipe recipe() {
    Recipe recipe;
    recipe.run.threads = 1;
    recipe.model.architecture = Architecture::llama;
    recipe.model.layers = 1;
    recipe.model.hidden = 32;
    recipe.model.heads = recipe.model.kv_heads = 1;
    recipe.model.feed_forward = 32;
    recipe.precision.policy = PrecisionPolicy::fp32;
    recipe.data.train = {{(*folder_ / "shards/train").string(), 1}};
    recipe.evaluation.tokens = 64;
    for (const std::int64_t sequence : {16, 32}) {
      PhaseSpec phase;
      phase.name = fmt::format("of {}", sequence);
      phase.sequence = sequence;
      phase.micro_batch = kMicroBatch;
      phase.global_batch = kGlobalBatch;
      phase.steps = 4;
      recipe.phases.push_back(phase);
    }
    return recipe;
  }
  static TrainingState state(int phase = 0, std::int64_t samples = 0) {
    TrainingState state;
    state.phase = phase;
    state.phase_samples = samples;
    state.reduction_groups = 2;
    return state;
  }
  static Layout alone_layout() { return layout_of(recipe(), 0, 1); }
  /// The inputs of the micro-batches of one global batch on this rank.
  static std::vector<std::vector<std::int32_t>> batch_of(Phase& phase, std::int64_t samples, int rank) {
    std::vector<std::vector<std::int32_t>> inputs;
    for (int round = 0; round < phase.plan().rounds(); ++round) {
      const GroupRange group = phase.plan().group(samples, round, rank);
      for (std::int64_t i = group.begin; i < group.end; ++i) {
        const BatchView view = phase.feed().next(phase.plan().range(samples, i));
        inputs.emplace_back(view.inputs.begin(), view.inputs.end());
      }
    }
    return inputs;
  }

  static std::unique_ptr<TemporaryFolder> folder_;
};
std::unique_ptr<TemporaryFolder> PhaseTest::folder_;

TEST_F(PhaseTest, RanksShareWhatOneRankReads) {
  const Recipe recipe = PhaseTest::recipe();
  const std::unique_ptr<Communicator> self = self_communicator();
  Mesh mesh(*self, {});
  RunResources resources(recipe, alone_layout(), mesh, {});
  Phase alone(recipe, resources, mesh, alone_layout(), state());
  const auto expected = batch_of(alone, 0, 0);
  ASSERT_EQ(expected.size(), 2u);
  EXPECT_EQ(expected[0].size(), static_cast<std::size_t>(kMicroBatch * 16));
  testing::run_ranks(2, [&](Communicator& world) {
    const Layout layout = layout_of(recipe, world.rank(), world.size());
    Mesh shared(world, layout.shape);
    RunResources own(recipe, layout, shared, {.ranks_on_cores = 2});
    Phase part(recipe, own, shared, layout, state());
    const auto inputs = batch_of(part, 0, world.rank());
    ASSERT_EQ(inputs.size(), 1u);
    EXPECT_EQ(inputs[0], expected[static_cast<std::size_t>(world.rank())]);
  });
}

// A phase that goes on reads what an undisturbed one would have read next.
TEST_F(PhaseTest, GoesOnWhereItStood) {
  const Recipe recipe = PhaseTest::recipe();
  const std::unique_ptr<Communicator> self = self_communicator();
  Mesh mesh(*self, {});
  RunResources resources(recipe, alone_layout(), mesh, {});
  Phase whole(recipe, resources, mesh, alone_layout(), state());
  const auto first = batch_of(whole, 0, 0);
  const auto second = batch_of(whole, kGlobalBatch, 0);
  EXPECT_NE(first, second);
  TrainingState later = state(0, kGlobalBatch);
  later.data_plan = whole.data_plan();
  Phase rest(recipe, resources, mesh, alone_layout(), later);
  EXPECT_EQ(batch_of(rest, kGlobalBatch, 0), second);
}

TEST_F(PhaseTest, OtherDataAreRefused) {
  const Recipe recipe = PhaseTest::recipe();
  const std::unique_ptr<Communicator> self = self_communicator();
  Mesh mesh(*self, {});
  RunResources resources(recipe, alone_layout(), mesh, {});
  TrainingState later = state(0, kGlobalBatch);
  later.data_plan = Phase(recipe, resources, mesh, alone_layout(), state(1)).data_plan();  // of another length
  EXPECT_THROW(Phase(recipe, resources, mesh, alone_layout(), later), Error);
}

TEST_F(PhaseTest, HasItsOwnLengthAndAnEvaluatorWhereTextIsHeldOut) {
  Recipe recipe = PhaseTest::recipe();
  const std::unique_ptr<Communicator> self = self_communicator();
  Mesh mesh(*self, {});
  {
    RunResources resources(recipe, alone_layout(), mesh, {});
    Phase second(recipe, resources, mesh, alone_layout(), state(1));
    EXPECT_EQ(batch_of(second, 0, 0)[0].size(), static_cast<std::size_t>(kMicroBatch * 32));
    EXPECT_EQ(second.evaluator(), nullptr);
  }
  recipe.data.validation = recipe.data.train;  // any text serves
  RunResources resources(recipe, alone_layout(), mesh, {});
  resources.model().initialise(1);
  resources.model().prepare();
  Phase phase(recipe, resources, mesh, alone_layout(), state());
  ASSERT_NE(phase.evaluator(), nullptr);
  EXPECT_GT(phase.evaluator()->run(0, [] { return false; }).metrics.tokens, 0);
}

TEST_F(PhaseTest, AMaskedOneReadsItsOwnConversationsAndShowsTheFirst) {
  std::string lines;
  for (int i = 0; i < 8; ++i) {
    lines += fmt::format(
        R"({{"messages": [{{"role": "user", "content": "{0} and "}}, {{"role": "assistant", "content": "{0}"}}]}})"
        "\n",
        i);
  }
  lines +=
      fmt::format(R"({{"messages": [{{"role": "user", "content": "{}"}}, {{"role": "assistant", "content": "long"}}]}})"
                  "\n",
                  std::string(40, 'x'));
  const TemporaryFolder folder;
  testing::write_text(folder / "chats.jsonl", lines);
  CorpusBuildOptions options;
  options.corpus.inputs = {folder / "chats.jsonl"};
  options.corpus.fields.chat = ChatFormat::plain;
  options.out = folder / "shards";
  options.tokenizer = TokenizerChoice::bytes;
  options.hold_out = 0;
  options.near_threshold = 2;
  Workers workers(1);
  build_corpus(options, workers, {[](const std::string&) {}});
  Recipe recipe = PhaseTest::recipe();
  recipe.phases[1].objective = ObjectiveName::masked;
  recipe.phases[1].train = {{(folder / "shards/train").string(), 1}};
  const std::unique_ptr<Communicator> self = self_communicator();
  Mesh mesh(*self, {});
  RunResources resources(recipe, alone_layout(), mesh, {});
  Phase sft(recipe, resources, mesh, alone_layout(), state(1));
  EXPECT_EQ(sft.long_documents().substr(0, 42), "of 9 documents 0 are cut and 1 dropped, 45");
  const std::string example = sft.first_example(resources.tokenizer());
  EXPECT_EQ(example.substr(1, 5), " and ");
  EXPECT_EQ(example.substr(6), fmt::format("\u27E6{}</s>\u27E7", example[0]));
  const BatchView batch = sft.feed().next({0, kMicroBatch});
  ASSERT_EQ(batch.columns.size(), 1u);
  EXPECT_EQ(batch.columns[0].name, kWeightColumn);
  EXPECT_EQ(batch.columns[0].values.size(), batch.inputs.size());
  // The other phase, of plain text, brings weights as well: the model has one objective.
  Phase text(recipe, resources, mesh, alone_layout(), state(0));
  EXPECT_EQ(text.feed().next({0, kMicroBatch}).columns.size(), 1u);
  EXPECT_EQ(text.long_documents(), "");

  const auto learned = [&](ObjectiveName objective) {
    recipe.phases[1].objective = objective;
    recipe.phases[1].long_documents = LongDocumentsSpec::drop;
    const std::unique_ptr<Loader> loader = RunResources(recipe, alone_layout(), mesh, {}).train_loader(1);
    return loader->fetch({0, loader->samples_per_epoch()}).trained_tokens;
  };
  EXPECT_EQ(learned(ObjectiveName::automatic), 8 * 2) << "a figure and the end";
  EXPECT_EQ(learned(ObjectiveName::next_token), 8 * 7) << "all but the first";
}

// Every token would be learned, which is not what was asked.
TEST_F(PhaseTest, AMaskedOneNeedsMarks) {
  Recipe recipe = PhaseTest::recipe();
  recipe.phases[0].objective = ObjectiveName::masked;
  recipe.phases[0].long_documents = LongDocumentsSpec::split;
  const std::unique_ptr<Communicator> self = self_communicator();
  Mesh mesh(*self, {});
  RunResources resources(recipe, alone_layout(), mesh, {});
  try {
    Phase phase(recipe, resources, mesh, alone_layout(), state(0));
    ADD_FAILURE() << "it learns every token";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_recipe);
    EXPECT_NE(std::string(error.what()).find("objective = masked: "), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace shoestring
