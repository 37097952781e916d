// What a pipeline hides of its messages, in virtual time: every rank has a clock that only its computations and the
// arrival of messages move, and every message takes a fixed time on its way. The same in every run, on any machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/base/workers.h"
#include "parallel/expert_exchange.h"
#include "parallel/pipeline.h"
#include "parallel/reduction.h"
#include "parallel/schedule_check.h"
#include "tests/support/delayed_communicator.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

using testing::DelayedCommunicator;

/// Every computation takes one unit.
class UnitStage final : public Stage {
 public:
  explicit UnitStage(double& clock) : clock_(clock) {}
  void forward(int, ConstTensorView, TensorView) override { clock_ += 1; }
  void backward_input(int, ConstTensorView, TensorView) override { clock_ += 1; }
  void backward_weight(int) override { clock_ += 1; }

 private:
  double& clock_;
};

struct Timing {
  double makespan = 0;
  double compute = 0;        ///< of the busiest rank
  double communication = 0;  ///< of the rank with most messages, one after the other
  double waited = 0;         ///< on that rank
};

Timing time_of(const Schedule& schedule, double delay, bool blocking) {
  const auto ranks = schedule.ranks.size();
  std::vector<Timing> timings(ranks);
  const std::vector<int> owner = rank_of_stage(schedule);
  testing::run_ranks(static_cast<int>(ranks), [&](Communicator& world) {
    double clock = 0;
    DelayedCommunicator delayed(world, clock, delay, blocking);
    std::vector<std::unique_ptr<UnitStage>> own;
    std::vector<Stage*> stages;
    for (const int rank : owner) {
      if (rank != world.rank()) continue;
      own.push_back(std::make_unique<UnitStage>(clock));
      stages.push_back(own.back().get());
    }
    Pipeline pipeline(schedule, delayed, stages, {DType::f32, {1, 1}, {}}, {}, [&] { return clock; });
    pipeline.run();
    Timing& timing = timings[static_cast<std::size_t>(world.rank())];
    timing = {.makespan = clock,
              .compute = pipeline.compute_seconds(),
              .communication = delayed.messages() * delay,
              .waited = pipeline.wait_seconds()};
    double traced = 0;
    for (const TraceEntry& entry : pipeline.trace()) traced += entry.wait_seconds;
    EXPECT_LE(traced, timing.waited);
    if (!blocking) {
      EXPECT_DOUBLE_EQ(timing.compute + timing.waited, timing.makespan);  // nothing is unaccounted for
    }
  });
  Timing all;
  for (const Timing& timing : timings) {
    all.makespan = std::max(all.makespan, timing.makespan);
    all.compute = std::max(all.compute, timing.compute);
    all.communication = std::max(all.communication, timing.communication);
    all.waited = std::max(all.waited, timing.waited);
  }
  return all;
}

class Overlap : public ::testing::TestWithParam<std::string_view> {};

// Long enough that filling and draining weigh little: what remains is what the messages cost.
TEST_P(Overlap, MessagesHideBehindComputation) {
  const Schedule schedule = make_schedule(GetParam(), {2, 60});
  const double delay = 0.4;
  const Timing hidden = time_of(schedule, delay, false);
  EXPECT_LE(hidden.makespan, 1.1 * std::max(hidden.compute, hidden.communication));
  const Timing exposed = time_of(schedule, delay, true);
  EXPECT_GE(exposed.makespan, 0.95 * (exposed.compute + exposed.communication));
  EXPECT_GT(exposed.makespan, 1.15 * hidden.makespan);
}

// With no delay the runtime takes the time that the simulation of its list expects, and with one never less.
TEST_P(Overlap, TheRuntimeTakesTheTimeThatItsListSays) {
  for (const int ranks : {2, 4}) {
    const Schedule schedule = make_schedule(GetParam(), {ranks, 3 * ranks});
    EXPECT_DOUBLE_EQ(time_of(schedule, 0, false).makespan, predict(schedule, {}).makespan);
    EXPECT_GE(time_of(schedule, 0.5, false).makespan, predict(schedule, {.transfer = 0.5}).makespan);
  }
}

// ---- rows of experts, behind the other half of a cell

/// Forward and backward exchange rows twice, between computations of one unit; so do the weight gradients without.
class ExpertStage final : public Stage {
 public:
  ExpertStage(double& clock, ExpertExchange& exchange, const ExpertExchange::Plan& plan)
      : clock_(clock), exchange_(exchange), plan_(plan) {}
  void forward(int, ConstTensorView, TensorView) override { compute_and_exchange(); }
  void backward_input(int, ConstTensorView, TensorView) override { compute_and_exchange(); }
  void backward_weight(int) override { compute(kExchanges + 1); }
  double computed() const { return computed_; }
  double communicated(double delay) const { return delay * exchanges_; }

 private:
  static constexpr int kExchanges = 2;
  void compute(int units) {
    clock_ += units;
    computed_ += units;
  }
  void compute_and_exchange() {
    compute(1);
    exchange_.dispatch(plan_, view_of(rows_, DType::f32, {2, 1}), view_of(received_, DType::f32, {2, 1}));
    compute(1);
    exchange_.combine(plan_, view_of(received_, DType::f32, {2, 1}), view_of(rows_, DType::f32, {2, 1}));
    compute(1);
    exchanges_ += kExchanges;
  }

  double& clock_;
  ExpertExchange& exchange_;
  const ExpertExchange::Plan& plan_;
  double computed_ = 0;
  int exchanges_ = 0;
  float rows_[2] = {}, received_[2] = {};
};

struct ExpertTiming {
  double makespan = 0;
  double compute = 0;
  double communication = 0;  ///< rows of experts, one exchange after the other
  double exposed = 0;        ///< as the exchange tells
};

/// Two stages' ranks, each two that share experts, whose rows take `delay`.
ExpertTiming time_of_experts(const Schedule& schedule, double delay, bool in_turns) {
  ExpertTiming longest;
  std::mutex mutex;
  testing::run_ranks(4, [&](Communicator& world) {
    const std::unique_ptr<Communicator> along = world.split(world.rank() % 2, world.rank());
    const std::unique_ptr<Communicator> group = world.split(world.rank() / 2, world.rank());
    double clock = 0;
    DelayedCommunicator messages(*along, clock, 0, false);
    DelayedCommunicator rows(*group, clock, delay, false);
    ExpertExchange exchange(rows, 2);
    const std::vector<std::int64_t> offsets = {0, 1, 2};
    const std::vector<std::int32_t> slots = {0, 1};
    const ExpertExchange::Plan plan = exchange.plan(exchange.announce(offsets, slots, 2));
    clock = 0;
    ExpertTiming timing;
    exchange.tell([&](bool waits) { timing.exposed += waits ? -clock : clock; });
    ExpertStage first(clock, exchange, plan), second(clock, exchange, plan);
    Stage* const stages[] = {&first, &second};
    Turns turns;
    if (in_turns) exchange.take(&turns);
    Pipeline pipeline(
        schedule, messages, stages, {DType::f32, {1, 1}, {}}, {}, [&] { return clock; }, in_turns ? &turns : nullptr);
    pipeline.run();
    timing.makespan = clock;
    timing.compute = first.computed() + second.computed();
    timing.communication = first.communicated(delay) + second.communicated(delay);
    // What the exchange tells is what the trace shows: time of its own that a half did not compute in.
    double traced = 0;
    for (const TraceEntry& entry : pipeline.trace()) traced += entry.own_seconds;
    EXPECT_NEAR(traced - timing.compute, timing.exposed, 1e-9 * clock);
    EXPECT_NEAR(traced + pipeline.wait_seconds(), clock, 1e-9 * clock);
    const std::lock_guard lock(mutex);
    if (timing.makespan > longest.makespan) longest = timing;
  });
  return longest;
}

// Hidden wholly while an exchange takes no longer than the computation between two of the other half; where messages
// take longer than all there is to compute, computation hides behind them.
TEST(OverlapOfExperts, RowsHideBehindTheOtherHalfOfACell) {
  const Schedule schedule = make_schedule("dualpipev", {2, 60});
  for (const double delay : {0.5, 1.0, 4.0}) {
    SCOPED_TRACE(delay);
    const ExpertTiming hidden = time_of_experts(schedule, delay, true);
    EXPECT_LE(hidden.makespan, 1.1 * std::max(hidden.compute, hidden.communication));
    const ExpertTiming exposed = time_of_experts(schedule, delay, false);
    EXPECT_GE(exposed.makespan, 0.95 * (exposed.compute + exposed.communication));
    EXPECT_EQ(exposed.exposed, exposed.communication);
    EXPECT_EQ(exposed.compute, hidden.compute);
  }
}

// Near one to one they do not hide wholly: weight gradients, which could fill the gaps, come after both halves.
TEST(OverlapOfExperts, AtOneToOneAShareIsExposed) {
  const Schedule schedule = make_schedule("dualpipev", {2, 60});
  const ExpertTiming hidden = time_of_experts(schedule, 2.25, true);
  EXPECT_DOUBLE_EQ(hidden.communication, hidden.compute);
  EXPECT_LE(hidden.makespan, 1.35 * hidden.compute);
  EXPECT_LE(hidden.makespan, 0.7 * time_of_experts(schedule, 2.25, false).makespan);
}

// Counts that are announced are there when what comes next has taken as long as they travel.
TEST(OverlapOfExperts, CountsHideBehindWhatComesNext) {
  for (const double computing : {0.0, 0.5, 2.0}) {
    testing::run_ranks(2, [&](Communicator& world) {
      double clock = 0;
      DelayedCommunicator messages(world, clock, 1, false);
      ExpertExchange exchange(messages, 2);
      double exposed = 0;
      exchange.tell([&](bool waits) { exposed += waits ? -clock : clock; });
      const std::vector<std::int64_t> offsets = {0, 2, 3};
      const std::vector<std::int32_t> slots = {0, 1, 2};
      ExpertExchange::Announced announced = exchange.announce(offsets, slots, 1);
      clock += computing;
      const ExpertExchange::Plan plan = exchange.plan(std::move(announced));
      EXPECT_EQ(plan.rows(), world.rank() == 0 ? 4 : 2);
      EXPECT_EQ(exposed, std::max(0.0, 1 - computing));
    });
  }
}

// Without cells nothing can hide them.
TEST(OverlapOfExperts, IsOfCellsOnly) {
  const Schedule schedule = make_schedule("zb_v", {2, 12});
  const ExpertTiming timing = time_of_experts(schedule, 1, true);
  EXPECT_EQ(timing.exposed, timing.communication);
}

// ---- gradients, behind the backward pass of earlier layers

struct GradientTiming {
  double makespan = 0;
  double compute = 0;
  double communication = 0;  ///< of a rank's messages, one after another
  double exposed() const { return makespan - compute; }
};

/// The weight gradients of the last micro-batch, one unit a layer, on two ranks that add them up with messages of
/// `delay`, as soon as a layer's are complete or after all.
GradientTiming time_of_gradients(int layers, double delay, bool overlaps) {
  constexpr std::int64_t kPerLayer = 2 * kShardBlock;  // half of them are the other rank's
  const std::int64_t elements = layers * kPerLayer;
  std::vector<ShardRange> ranges;
  std::vector<Bucket> buckets;
  for (std::int64_t begin = 0; begin < elements; begin += kPerLayer) {
    ranges.push_back({begin, begin + kShardBlock, 0});
    ranges.push_back({begin + kShardBlock, begin + kPerLayer, 1});
    buckets.insert(buckets.begin(), Bucket{{begin, begin + kPerLayer}});
  }
  const auto value = [](std::int64_t i, int rank) { return 1.0F / static_cast<float>(1 + i % 97 + 1000 * rank); };
  GradientTiming longest;
  std::mutex mutex;
  testing::run_ranks(2, [&](Communicator& world) {
    double clock = 0;
    DelayedCommunicator messages(world, clock, delay, false, true);
    Workers workers(1);
    Stream stream(workers);
    CanonicalReducer reducer(messages, ShardLayout(ranges, 2), 1, DType::f32, stream, 1, buckets);
    Tensor gradient(DType::f32, {elements});
    reducer.begin(gradient);
    GradientTiming timing;
    for (int layer = 0; layer < layers; ++layer) {
      for (std::int64_t i = 0; i < kPerLayer; ++i) {
        const std::int64_t at = elements - (layer + 1) * kPerLayer + i;
        gradient.as<float>()[at] = value(at, world.rank());
      }
      clock += 1;
      if (overlaps) reducer.complete(layer);
    }
    timing.compute = clock;
    reducer.fold();
    timing.makespan = clock;
    const std::int64_t exchanges = messages.messages() / 2;
    timing.communication = static_cast<double>(exchanges) * delay;
    Tensor total(DType::f32, {elements});
    reducer.place(total);
    for (const ShardRange& range : ranges) {
      if (range.owner != world.rank()) continue;
      for (std::int64_t i = range.begin; i < range.end; ++i) {
        ASSERT_EQ(total.as<float>()[i], value(i, 0) + value(i, 1));
      }
    }
    const std::lock_guard lock(mutex);
    if (timing.makespan > longest.makespan) longest = timing;
  });
  return longest;
}

TEST(OverlapOfGradients, TheyAreAddedUpWhileEarlierLayersGoOn) {
  constexpr int kLayers = 24;
  for (const double delay : {0.25, 1.0, 3.0}) {
    SCOPED_TRACE(delay);
    const GradientTiming hidden = time_of_gradients(kLayers, delay, true);
    EXPECT_EQ(hidden.communication, kLayers * delay);
    EXPECT_LE(hidden.makespan, 1.1 * std::max(hidden.compute, hidden.communication));
    const GradientTiming exposed = time_of_gradients(kLayers, delay, false);
    EXPECT_EQ(exposed.makespan, exposed.compute + exposed.communication);
    if (delay <= 1) {
      EXPECT_EQ(hidden.exposed(), delay);  // those of the first layer, which nothing comes after
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, Overlap, ::testing::Values("1f1b", "zb_h1", "zb_v", "dualpipev"),
                         [](const auto& parameter) { return "s_" + std::string(parameter.param); });

}  // namespace
}  // namespace shoestring
