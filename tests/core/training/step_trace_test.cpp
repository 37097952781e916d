#include "core/training/step_trace.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "parallel/schedule_check.h"
#include "tests/core/training/layout_rank.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

class TracedSchedules : public ::testing::TestWithParam<ScheduleName> {};

// A real model's trace is its schedule's list, messages included, on every rank and in every reduction group; gathered
// on rank 0 it is whole.
TEST_P(TracedSchedules, TheTraceIsTheList) {
  const ModelConfig config = eight_layers(Architecture::deepseek_v3);
  run_ranks(2, [&](Communicator& world) {
    LayoutRank rank(config, PrecisionPolicy::fp32, LayoutRank::recipe_of(config, 2, GetParam()), world);
    Meter meter(system_clock());
    Pass pass(rank.model, rank.mesh, LayoutRank::kGroups, rank.stream, meter, rank.layout.schedule);
    StepTrace trace(world, rank.layout, 2, meter);
    const Schedule schedule = make_schedule(rank.layout.schedule, 2, 8);
    for (int step = 1; step <= 5; ++step) {
      trace.begin_step();
      pass.run(rank.plan, 0, rank.feed);
      trace.stepped(step, pass);
      EXPECT_EQ(trace.due(), step >= 4);  // three steps, which every pipeline is measured in, after the first
    }
    const std::vector<TraceEvent> events = trace.gather().events;
    EXPECT_FALSE(trace.due());
    EXPECT_EQ(events.empty(), world.rank() > 0);
    if (world.rank() > 0) return;
    std::map<std::tuple<int, std::int64_t, int>, std::vector<Action>> lists;
    for (const TraceEvent& event : events) {
      std::vector<Action>& list = lists[{event.rank, event.step, event.group}];
      EXPECT_EQ(event.place, static_cast<int>(list.size()));
      list.push_back({static_cast<ActionKind>(event.kind), event.stage, event.microbatch});
    }
    EXPECT_EQ(lists.size(), 2u * 3u * LayoutRank::kGroups);  // ranks, steps, groups
    for (const auto& [key, list] : lists) {
      std::vector<Action> wanted = schedule.ranks[static_cast<std::size_t>(std::get<0>(key))];
      for (Action& action : wanted) action.with_next = false;  // what forms a cell is not an action's
      EXPECT_EQ(list, wanted);
    }
    const std::optional<PipelineUse> use = pipeline_use(events, rank.layout);
    ASSERT_TRUE(use.has_value());
    EXPECT_EQ(use->steps, 3);
    EXPECT_EQ(use->microbatches, 8);
    EXPECT_GT(use->bubble, 0);
    EXPECT_LT(use->bubble, 1);
  });
}
INSTANTIATE_TEST_SUITE_P(All, TracedSchedules,
                         ::testing::Values(ScheduleName::one_f_one_b, ScheduleName::interleaved, ScheduleName::zb_h1,
                                           ScheduleName::zb_v, ScheduleName::dualpipev));

// Where experts are elsewhere the halves of a cell take turns: the backward begins before the forward has ended. The
// order of beginnings is the list's all the same, and time that the other half had counts once.
TEST(TracedTurns, TheHalvesOfACellOverlap) {
  const ModelConfig config = eight_layers(Architecture::deepseek_v3);
  run_ranks(4, [&](Communicator& world) {
    LayoutRank rank(config, PrecisionPolicy::fp32, LayoutRank::recipe_of(config, 2, ScheduleName::dualpipev, 2), world);
    ASSERT_TRUE(takes_turns(rank.layout));
    rank.engine.reset();  // its pass tells the exchange too
    Meter meter(system_clock());
    Pass pass(rank.model, rank.mesh, LayoutRank::kGroups, rank.stream, meter, rank.layout.schedule);
    pass.run(rank.plan, 0, rank.feed);
    const std::vector<Action> list =
        make_schedule(rank.layout.schedule, 2, 8).ranks[static_cast<std::size_t>(rank.layout.at.pipeline)];
    int cells = 0;
    for (const GroupTrace& group : pass.traces()) {
      ASSERT_EQ(group.entries.size(), list.size());
      double own = 0;
      for (std::size_t i = 0; i < list.size(); ++i) {
        EXPECT_TRUE(group.entries[i].action == list[i]);
        own += group.entries[i].own_seconds;
        if (!list[i].with_next || list[i].kind != ActionKind::forward) continue;
        ++cells;
        EXPECT_LT(group.entries[i + 1].start_seconds, group.entries[i].end_seconds);
        EXPECT_LT(group.entries[i].own_seconds, group.entries[i].end_seconds - group.entries[i].start_seconds);
      }
      EXPECT_LE(own, group.entries.back().end_seconds);
    }
    EXPECT_GT(cells, 4);
  });
}

/// What ranks would do that take the times `times` and lose nothing to messages.
std::vector<TraceEvent> played(const Layout& layout, int microbatches, const std::vector<double>& stage_factors) {
  const Schedule schedule = make_schedule(layout.schedule, layout.shape.pipeline, microbatches);
  const ActionTimes times{.forward = 1, .backward_input = 1, .backward_weight = 1, .per_stage = stage_factors};
  std::vector<TraceEvent> events;
  std::vector<double> free(schedule.ranks.size(), 0.0);
  std::map<std::pair<int, int>, double> forward, backward;  // ends, by stage and micro-batch
  std::vector<std::size_t> next(schedule.ranks.size(), 0);
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
      while (next[rank] < schedule.ranks[rank].size()) {
        const Action& action = schedule.ranks[rank][next[rank]];
        double ready = 0;
        if (action.kind == ActionKind::forward && action.stage > 0) {
          const auto before = forward.find({action.stage - 1, action.microbatch});
          if (before == forward.end()) break;
          ready = before->second;
        }
        if (action.kind == ActionKind::backward_input && action.stage + 1 < schedule.stages) {
          const auto after = backward.find({action.stage + 1, action.microbatch});
          if (after == backward.end()) break;
          ready = after->second;
        }
        ++next[rank];
        moved = true;
        if (!action.computes()) continue;
        const double begin = std::max(free[rank], ready);
        const double end = begin + stage_factors[static_cast<std::size_t>(action.stage)];
        events.push_back({.step = 2,
                          .rank = static_cast<int>(rank),
                          .kind = static_cast<int>(action.kind),
                          .stage = action.stage,
                          .microbatch = action.microbatch,
                          .begin_seconds = begin,
                          .end_seconds = end,
                          .own_seconds = end - begin,
                          .wait_seconds = begin - free[rank]});
        free[rank] = end;
        if (action.kind == ActionKind::forward) forward[{action.stage, action.microbatch}] = end;
        if (action.kind == ActionKind::backward_input) backward[{action.stage, action.microbatch}] = end;
      }
    }
  }
  const Prediction expected = predict(schedule, times);
  for (const double end : free) EXPECT_LE(end, expected.makespan);
  return events;
}

Layout pipeline_of(int ranks, ScheduleName schedule) {
  Recipe recipe;
  recipe.model.layers = 2 * ranks;
  recipe.parallel.pipeline = ranks;
  recipe.parallel.schedule = schedule;
  PhaseSpec phase;
  phase.micro_batch = 1;
  phase.global_batch = 8;
  recipe.phases = {phase};
  return layout_of(recipe, 0, ranks);
}

// 1F1B of four ranks and eight micro-batches: 8 x 3 of work, and (p - 1)(F + B) of bubble where W is not waited for.
TEST(PipelineUse, OfEqualStagesIsTheFormula) {
  const Layout layout = pipeline_of(4, ScheduleName::one_f_one_b);
  const std::optional<PipelineUse> use = pipeline_use(played(layout, 8, {1, 1, 1, 1}), layout);
  ASSERT_TRUE(use.has_value());
  const double makespan = predict(make_schedule(layout.schedule, 4, 8), {}).makespan;
  EXPECT_DOUBLE_EQ(use->bubble, 1 - 24 / makespan);
  EXPECT_DOUBLE_EQ(use->simulated_bubble, use->bubble);
  EXPECT_DOUBLE_EQ(use->imbalance, 0);
}

TEST(PipelineUse, ASlowStageShows) {
  const Layout layout = pipeline_of(4, ScheduleName::zb_h1);
  const std::vector<TraceEvent> events = played(layout, 8, {1, 2, 1, 1});
  const std::optional<PipelineUse> use = pipeline_use(events, layout);
  ASSERT_TRUE(use.has_value());
  EXPECT_NEAR(use->imbalance, 2 / 1.25 - 1, 1e-12);
  EXPECT_NEAR(use->simulated_bubble, use->bubble, 1e-12);
  EXPECT_EQ(use->stage_seconds, (std::vector<double>{3, 6, 3, 3}));
  EXPECT_GT(use->bubble, pipeline_use(played(layout, 8, {1, 1, 1, 1}), layout)->bubble);
}

// What a message or a busy machine held up is in the measured bubble, and not in the simulated one.
TEST(PipelineUse, WhatHoldsARankUpIsMeasuredOnly) {
  const Layout layout = pipeline_of(2, ScheduleName::one_f_one_b);
  std::vector<TraceEvent> events = played(layout, 4, {1, 1});
  const double before = pipeline_use(events, layout)->bubble;
  for (TraceEvent& event : events) {
    if (event.begin_seconds < 5) continue;
    event.begin_seconds += 3;
    event.end_seconds += 3;
  }
  const std::optional<PipelineUse> use = pipeline_use(events, layout);
  EXPECT_GT(use->bubble, before + 0.05);
  EXPECT_DOUBLE_EQ(use->simulated_bubble, before);
}

TEST(PipelineUse, NothingWithoutAPipeline) {
  EXPECT_FALSE(pipeline_use({}, pipeline_of(2, ScheduleName::zb_v)));
  EXPECT_FALSE(pipeline_use({TraceEvent{}}, pipeline_of(1, ScheduleName::zb_v)));
}

TEST(ChromeTrace, HoldsEveryActionAndWait) {
  const Layout layout = pipeline_of(2, ScheduleName::one_f_one_b);
  const RunTrace trace{
      .events = played(layout, 4, {1, 1}),
      .waits = {{.rank = 1, .category = static_cast<int>(Category::bubble), .begin_seconds = 0, .end_seconds = 1},
                {.rank = 0,
                 .category = static_cast<int>(Category::exposed_communication),
                 .begin_seconds = 14,
                 .end_seconds = 14.5}}};
  const auto json = nlohmann::json::parse(chrome_trace(trace, layout.shape));
  std::size_t actions = 0;
  std::size_t waits = 0;
  std::map<int, std::string> rows;
  for (const auto& entry : json.at("traceEvents")) {
    EXPECT_EQ(entry.at("pid"), 0);
    if (entry.at("name") == "thread_name") rows[entry.at("tid")] = entry.at("args").at("name");
    if (entry.at("ph") == "M") continue;
    EXPECT_EQ(entry.at("ph"), "X");
    const double begin = entry.at("ts").get<double>() / 1e6;
    const double seconds = entry.at("dur").get<double>() / 1e6;
    if (entry.at("cat") == "wait") {
      const TraceWait& wait = trace.waits.at(waits++);
      EXPECT_EQ(rows[entry.at("tid")], fmt::format("rank {}, waits", wait.rank));
      EXPECT_EQ(entry.at("name"), name(static_cast<Category>(wait.category)));
      EXPECT_DOUBLE_EQ(begin, wait.begin_seconds);
      EXPECT_DOUBLE_EQ(seconds, wait.end_seconds - wait.begin_seconds);
      continue;
    }
    const TraceEvent& event = trace.events.at(actions++);
    EXPECT_EQ(rows[entry.at("tid")], fmt::format("rank {}", event.rank));
    EXPECT_EQ(entry.at("name"), to_string(Action{static_cast<ActionKind>(event.kind), event.stage, event.microbatch}));
    EXPECT_DOUBLE_EQ(begin, event.begin_seconds);
    EXPECT_DOUBLE_EQ(seconds, 1);
    EXPECT_EQ(entry.at("args").at("step"), 2);
  }
  EXPECT_EQ(actions, trace.events.size());
  EXPECT_EQ(waits, trace.waits.size());
}

}  // namespace
}  // namespace shoestring
