#include "parallel/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "parallel/schedule_check.h"
#include "tests/support/fill.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

constexpr std::int64_t kTokens = 3;
constexpr std::int64_t kHidden = 5;

/// y = x W, dx = dy W^T, dW += x^T dy. It keeps views of x and dy until backward_weight, as the contract allows, and
/// the loss of the last stage is |y|^2 / 2.
class LinearStage : public Stage {
 public:
  LinearStage(int number, int stages)
      : first_(number == 0), last_(number + 1 == stages), gradient_(DType::f32, {kHidden, kHidden}) {
    weight_ = testing::normal(DType::f32, {kHidden, kHidden}, static_cast<std::uint64_t>(100 + number), 0.5);
  }

  void forward(int microbatch, ConstTensorView input, TensorView output) override {
    EXPECT_EQ(input.empty(), first_);
    EXPECT_EQ(output.empty(), last_);
    Kept& kept = kept_[microbatch];
    if (first_) {
      kept.own_input = testing::normal(DType::f32, {kTokens, kHidden}, static_cast<std::uint64_t>(microbatch));
      input = kept.own_input.view();
    }
    kept.input = input;
    if (last_) {
      kept.own_output = Tensor(DType::f32, {kTokens, kHidden});
      output = kept.own_output;
    }
    multiply(input, weight_.view(), output);
    if (last_) {
      for (std::int64_t i = 0; i < output.elements(); ++i) loss_ += std::pow(output.as<float>()[i], 2.0F) / 2;
    }
  }

  void backward_input(int microbatch, ConstTensorView output_gradient, TensorView input_gradient) override {
    Kept& kept = kept_[microbatch];
    kept.output_gradient = last_ ? ConstTensorView(kept.own_output) : output_gradient;
    if (!first_) multiply(kept.output_gradient, weight_.view().transposed(), input_gradient);
  }

  void backward_weight(int microbatch) override {
    const Kept& kept = kept_.at(microbatch);
    for (std::int64_t t = 0; t < kTokens; ++t) {
      for (std::int64_t i = 0; i < kHidden; ++i) {
        for (std::int64_t j = 0; j < kHidden; ++j) {
          gradient_.as<float>()[i * kHidden + j] +=
              kept.input.as<float>()[t * kHidden + i] * kept.output_gradient.as<float>()[t * kHidden + j];
        }
      }
    }
    kept_.erase(microbatch);
  }

  const Tensor& gradient() const { return gradient_; }
  float loss() const { return loss_; }
  std::size_t kept() const { return kept_.size(); }

 private:
  struct Kept {
    Tensor own_input, own_output;
    ConstTensorView input, output_gradient;
  };

  static void multiply(ConstTensorView x, ConstTensorView w, TensorView y) {
    for (std::int64_t t = 0; t < kTokens; ++t) {
      for (std::int64_t j = 0; j < kHidden; ++j) {
        float sum = 0;
        for (std::int64_t i = 0; i < kHidden; ++i) {
          sum += x.as<float>()[t * kHidden + i] * w.as<float>()[i * w.strides[0] + j * w.strides[1]];
        }
        y.as<float>()[t * kHidden + j] = sum;
      }
    }
  }

  bool first_, last_;
  Tensor weight_, gradient_;
  std::map<int, Kept> kept_;
  float loss_ = 0;
};

/// The same, letting the other half of a cell go on in the middle of everything.
class PassingStage final : public LinearStage {
 public:
  PassingStage(int number, int stages, Turns& turns) : LinearStage(number, stages), turns_(turns) {}
  void forward(int microbatch, ConstTensorView input, TensorView output) override {
    turns_.pass();
    LinearStage::forward(microbatch, input, output);
    turns_.pass();
  }
  void backward_input(int microbatch, ConstTensorView output_gradient, TensorView input_gradient) override {
    turns_.pass();
    LinearStage::backward_input(microbatch, output_gradient, input_gradient);
    turns_.pass();
  }

 private:
  Turns& turns_;
};

struct Result {
  std::vector<std::vector<float>> gradients;  // per stage
  float loss = 0;
};

std::vector<float> values_of(const Tensor& tensor) {
  return {tensor.as<float>(), tensor.as<float>() + tensor.view().elements()};
}

/// Stage after stage, micro-batch after micro-batch, with plain calls.
Result sequential(int stages, int microbatches) {
  std::vector<std::unique_ptr<LinearStage>> model;
  for (int s = 0; s < stages; ++s) model.push_back(std::make_unique<LinearStage>(s, stages));
  for (int m = 0; m < microbatches; ++m) {
    std::vector<Tensor> activations, gradients;
    for (int s = 0; s < stages; ++s) {
      activations.emplace_back(DType::f32, Shape{kTokens, kHidden});
      gradients.emplace_back(DType::f32, Shape{kTokens, kHidden});
    }
    const auto at = [](std::vector<Tensor>& tensors, int s) { return tensors[static_cast<std::size_t>(s)].view(); };
    const auto last = [&](int s) { return s + 1 == stages; };
    for (int s = 0; s < stages; ++s) {
      model[static_cast<std::size_t>(s)]->forward(m, s == 0 ? ConstTensorView{} : at(activations, s - 1),
                                                  last(s) ? TensorView{} : at(activations, s));
    }
    for (int s = stages - 1; s >= 0; --s) {
      model[static_cast<std::size_t>(s)]->backward_input(m, last(s) ? ConstTensorView{} : at(gradients, s + 1),
                                                         s == 0 ? TensorView{} : at(gradients, s));
      model[static_cast<std::size_t>(s)]->backward_weight(m);
    }
  }
  Result result;
  for (const auto& stage : model) result.gradients.push_back(values_of(stage->gradient()));
  result.loss = model.back()->loss();
  return result;
}

enum class Cells { in_order, in_turns };

Result pipelined(const Schedule& schedule, int passes = 1, Cells cells = Cells::in_order) {
  Result result;
  result.gradients.resize(static_cast<std::size_t>(schedule.stages));
  const std::vector<int> owner = rank_of_stage(schedule);
  testing::run_ranks(static_cast<int>(schedule.ranks.size()), [&](Communicator& world) {
    std::vector<std::unique_ptr<LinearStage>> mine;
    std::vector<int> numbers;
    Turns turns;
    for (int s = 0; s < schedule.stages; ++s) {
      if (owner[static_cast<std::size_t>(s)] != world.rank()) continue;
      mine.push_back(std::make_unique<PassingStage>(s, schedule.stages, turns));
      numbers.push_back(s);
    }
    std::vector<Stage*> stages;
    for (const auto& stage : mine) stages.push_back(stage.get());
    Pipeline pipeline(schedule, world, stages, {DType::f32, {kTokens, kHidden}, {}}, {}, Pipeline::steady_seconds,
                      cells == Cells::in_turns ? &turns : nullptr);
    for (int pass = 0; pass < passes; ++pass) pipeline.run();
    const auto& list = schedule.ranks[static_cast<std::size_t>(world.rank())];
    const auto sends = std::count_if(list.begin(), list.end(), [](const Action& action) {
      return action.kind == ActionKind::send_activation || action.kind == ActionKind::send_gradient;
    });
    EXPECT_EQ(world.sent_bytes(), passes * sends * kTokens * kHidden * 4);  // one boundary tensor a message
    for (std::size_t i = 0; i < mine.size(); ++i) {
      EXPECT_EQ(mine[i]->kept(), forward_only(schedule) ? static_cast<std::size_t>(schedule.microbatches) : 0U);
      result.gradients[static_cast<std::size_t>(numbers[i])] = values_of(mine[i]->gradient());  // one writer each
      if (numbers[i] + 1 == schedule.stages) result.loss = mine[i]->loss();
    }
    // The trace is the list.
    std::vector<Action> done;
    double begun = 0;
    double end = 0;
    for (const TraceEntry& entry : pipeline.trace()) {
      done.push_back(entry.action);
      EXPECT_GE(entry.start_seconds, cells == Cells::in_order ? end : begun);
      EXPECT_GE(entry.end_seconds, entry.start_seconds);
      EXPECT_GE(entry.wait_seconds, 0);
      EXPECT_LE(entry.own_seconds, (entry.end_seconds - entry.start_seconds) * 1.001 + 1e-9);
      begun = entry.start_seconds;
      end = std::max(end, entry.end_seconds);
    }
    EXPECT_EQ(done, list);
    EXPECT_GE(end * 1.001, pipeline.compute_seconds());
  });
  return result;
}

class PipelineEqualsSequential : public ::testing::TestWithParam<std::string_view> {};

TEST_P(PipelineEqualsSequential, BitForBit) {
  for (const int ranks : {1, 2, 4}) {
    for (const int microbatches : {2 * ranks, 2 * ranks + 3, 3 * ranks}) {
      const ScheduleRequest request{ranks, microbatches, GetParam() == "interleaved" ? 3 : 1};
      const auto& builders = schedule_builders();
      const auto builder = std::find_if(builders.begin(), builders.end(),
                                        [](const ScheduleBuilder& one) { return one.name == GetParam(); });
      if (!builder->refuses(request).empty()) continue;
      SCOPED_TRACE(fmt::format("{} ranks, {} micro-batches", ranks, microbatches));
      const Schedule schedule = make_schedule(GetParam(), request);
      const Result want = sequential(schedule.stages, microbatches);
      const Result got = pipelined(schedule);
      EXPECT_EQ(got.gradients, want.gradients);
      EXPECT_EQ(got.loss, want.loss);
      EXPECT_GT(want.loss, 0);
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Schedules, PipelineEqualsSequential,
                         ::testing::Values("1f1b", "interleaved", "zb_h1", "zb_v", "dualpipev"),
                         [](const auto& parameter) { return "s_" + std::string(parameter.param); });

// The halves of a cell run into each other, and nothing shows in a result.
TEST(Pipeline, TakesTurnsBitForBit) {
  for (const int ranks : {1, 2, 4}) {
    const Schedule schedule = make_schedule("dualpipev", {ranks, 2 * ranks + 5});
    const Result want = sequential(schedule.stages, schedule.microbatches);
    const Result got = pipelined(schedule, 1, Cells::in_turns);
    EXPECT_EQ(got.gradients, want.gradients);
    EXPECT_EQ(got.loss, want.loss);
  }
}

TEST(Pipeline, RunsAgainWithTheSameBuffers) {
  const Schedule schedule = make_schedule("zb_v", {2, 5});
  std::vector<Stage*> none;
  const Result once = pipelined(schedule, 1);
  const Result thrice = pipelined(schedule, 3);
  for (std::size_t s = 0; s < once.gradients.size(); ++s) {
    for (std::size_t i = 0; i < once.gradients[s].size(); ++i) {
      EXPECT_NEAR(thrice.gradients[s][i], 3 * once.gradients[s][i], 1e-4F * std::abs(once.gradients[s][i]) + 1e-4F);
    }
  }
}

TEST(Pipeline, ForwardOnlyGivesTheSameLoss) {
  for (const char* name : {"1f1b", "zb_v"}) {
    const Schedule training = make_schedule(name, {3, 6});
    const Schedule forward = forward_schedule(training, 4);
    EXPECT_TRUE(check_schedule(forward).faults.empty()) << to_string(forward);
    EXPECT_EQ(pipelined(forward).loss, sequential(training.stages, 4).loss);
  }
}

TEST(Pipeline, OneStageNeedsNoMessage) {
  const Schedule schedule = make_schedule("1f1b", {1, 3});
  EXPECT_EQ(to_string(schedule),
            "schedule 1f1b stages 1 microbatches 3 ranks 1\n"
            "0: F0.0 B0.0 W0.0 F0.1 B0.1 W0.1 F0.2 B0.2 W0.2\n");
  const auto self = self_communicator();
  LinearStage stage(0, 1);
  Stage* stages[] = {&stage};
  Pipeline pipeline(schedule, *self, stages, {DType::f32, {kTokens, kHidden}, {}});
  pipeline.run();
  EXPECT_EQ(pipeline.buffer_bytes(), 0);
  EXPECT_EQ(pipeline.wait_seconds(), 0);
  EXPECT_EQ(values_of(stage.gradient()), sequential(1, 3).gradients[0]);
}

TEST(Pipeline, KeepsOneInputPerMicrobatchInFlight) {
  const int ranks = 4;
  const Schedule schedule = make_schedule("1f1b", {ranks, 12});
  testing::run_ranks(ranks, [&](Communicator& world) {
    LinearStage stage(world.rank(), ranks);
    Stage* stages[] = {&stage};
    const Pipeline pipeline(schedule, world, stages, {DType::f32, {kTokens, kHidden}, {}});
    const std::int64_t tensors = pipeline.buffer_bytes() / (kTokens * kHidden * 4);
    const int in_flight = ranks - world.rank();
    // Input and output gradient per slot (one more slot may be receiving), two buffers out in each direction.
    EXPECT_LE(tensors, 2 * (in_flight + 1) + 4);
  });
}

TEST(Pipeline, RefusesWhatCannotRun) {
  const auto self = self_communicator();
  LinearStage stage(0, 1);
  Stage* stages[] = {&stage, &stage};
  const Boundary boundary{DType::f32, {kTokens, kHidden}, {}};
  EXPECT_THROW(Pipeline(make_schedule("1f1b", {1, 2}), *self, stages, boundary), Error);
  EXPECT_THROW(Pipeline(make_schedule("1f1b", {2, 2}), *self, std::span(stages, 1), boundary), Error);
  EXPECT_THROW(Pipeline(parse_schedule("schedule x stages 1 microbatches 1 ranks 1\n0: F0.0 W0.0 B0.0"), *self,
                        std::span(stages, 1), boundary),
               Error);
}

TEST(Pipeline, AnErrorOnOneRankReachesAll) {
  class Failing : public LinearStage {
   public:
    using LinearStage::LinearStage;
    void forward(int microbatch, ConstTensorView input, TensorView output) override {
      if (microbatch == 2) fail(ExitCode::non_finite, "loss is not finite");
      LinearStage::forward(microbatch, input, output);
    }
  };
  const Schedule schedule = make_schedule("1f1b", {3, 6});
  EXPECT_THROW(testing::run_ranks(3,
                                  [&](Communicator& world) {
                                    LinearStage good(world.rank(), 3);
                                    Failing bad(world.rank(), 3);
                                    Stage* stages[] = {world.rank() == 1 ? static_cast<Stage*>(&bad) : &good};
                                    Pipeline pipeline(schedule, world, stages, {DType::f32, {kTokens, kHidden}, {}});
                                    pipeline.run();
                                  }),
               Error);
}

}  // namespace
}  // namespace shoestring
