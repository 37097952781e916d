#include "parallel/schedule_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

int most(const std::vector<int>& values) { return *std::max_element(values.begin(), values.end()); }

Schedule made(std::string_view name, int ranks, int microbatches) {
  return make_schedule(name, {ranks, microbatches, name == "interleaved" ? 2 : 1});
}

TEST(ScheduleCheck, EveryBuilderIsSound) {
  for (const ScheduleBuilder& builder : schedule_builders()) {
    for (const int ranks : {1, 2, 3, 4, 5, 8, 16}) {
      for (const int microbatches : {1, 2, ranks, 2 * ranks, 2 * ranks + 1, 3 * ranks, 5 * ranks + 2}) {
        const ScheduleRequest request{ranks, microbatches, builder.name == "interleaved" ? 3 : 1};
        if (!builder.refuses(request).empty()) continue;
        SCOPED_TRACE(fmt::format("{} {} {}", builder.name, ranks, microbatches));
        const ScheduleReport report = check_schedule(make_schedule(builder.name, request));
        EXPECT_TRUE(report.faults.empty()) << report.faults.front();
      }
    }
  }
}

// parallel/README.md has the table. p ranks; F, B, W of one stage.

TEST(ScheduleCheck, OneForwardOneBackwardHasThePublishedBubble) {
  for (const int p : {2, 4, 8}) {
    const Schedule schedule = made("1f1b", p, 3 * p);
    EXPECT_EQ(most(check_schedule(schedule).peak_until_backward_weight), p);
    for (const double forward : {1.0, 0.5, 3.0}) {
      // The formula has one backward: all of it before the gradient leaves.
      const Prediction whole = predict(schedule, {.forward = forward, .backward_input = 2, .backward_weight = 0});
      EXPECT_DOUBLE_EQ(whole.worst_bubble(), (p - 1) * (forward + 2));
    }
    // Here the gradient leaves before W, which saves (p - 1) W.
    EXPECT_DOUBLE_EQ(predict(schedule, {}).worst_bubble(), (p - 1) * 2.0);
  }
}

TEST(ScheduleCheck, InterleavedDividesTheBubble) {
  for (const int p : {2, 4, 8}) {
    const Schedule schedule = made("interleaved", p, 3 * p);
    // Two chunks per rank, each half of a 1f1b stage.
    const Prediction half = predict(schedule, {.forward = 0.5, .backward_input = 1, .backward_weight = 0});
    EXPECT_DOUBLE_EQ(half.worst_bubble(), (p - 1) * 3.0 / 2);
  }
}

TEST(ScheduleCheck, ZeroBubbleH1HasThePublishedBubbleAndMemory) {
  for (const int p : {2, 4, 8}) {
    const Schedule schedule = made("zb_h1", p, 3 * p);
    EXPECT_EQ(most(check_schedule(schedule).peak_until_backward_weight), p);
    for (const double weight : {1.0, 0.75, 0.25}) {  // exact while W <= min(F, B)
      const Prediction prediction = predict(schedule, {.forward = 1, .backward_input = 1, .backward_weight = weight});
      EXPECT_DOUBLE_EQ(prediction.worst_bubble(), (p - 1) * (1 + 1 - weight));
    }
  }
}

TEST(ScheduleCheck, ZeroBubbleVNeverIdlesBetweenItsFirstAndLast) {
  for (const int p : {2, 4, 8}) {
    const Schedule schedule = made("zb_v", p, 3 * p);
    EXPECT_EQ(most(check_schedule(schedule).peak_until_backward_weight), 2 * p);  // of half stages: 1f1b's memory
    const Prediction prediction = predict(schedule, {});
    EXPECT_DOUBLE_EQ(*std::max_element(prediction.inner.begin(), prediction.inner.end()), 0);
    EXPECT_DOUBLE_EQ(prediction.worst_bubble(), p - 1);  // filling only
  }
}

TEST(ScheduleCheck, DualPipeVHasThePublishedBubbleAndMemory) {
  for (const int p : {2, 4, 8}) {
    const Schedule schedule = made("dualpipev", p, 3 * p);
    const ScheduleReport report = check_schedule(schedule);
    for (const int peak : report.peak_until_backward_input) EXPECT_EQ(peak, 2 * p + 1);
    for (const double hidden : {0.0, 0.25}) {
      const double cell = 3 * (1 - hidden);
      const Prediction prediction = predict(schedule, {.cell_hidden = hidden});
      EXPECT_DOUBLE_EQ(prediction.worst_bubble(), (p - 1) * (cell + 2 - 3));  // (PP/2 - 1)(F&B + B - 3W)
    }
  }
}

TEST(ScheduleCheck, TransfersAndUnevenStagesLengthenTheRun) {
  const Schedule schedule = made("1f1b", 4, 8);
  const double plain = predict(schedule, {}).makespan;
  EXPECT_GE(predict(schedule, {.transfer = 0.5}).makespan, plain + 6 * 0.5);  // down and up the pipeline once
  EXPECT_GT(predict(schedule, {.per_stage = {1, 1, 2, 1}}).makespan, 8 * 6.0);
}

/// The faults of 1f1b after `damage`.
std::string faults_after(const std::function<void(Schedule&)>& damage) {
  Schedule schedule = make_schedule("1f1b", {2, 3});
  damage(schedule);
  std::string text;
  for (const std::string& fault : check_schedule(schedule).faults) text += fault + "\n";
  EXPECT_THROW(require_sound(schedule), Error);
  return text;
}

std::size_t find(const std::vector<Action>& list, std::string_view action) {
  const auto at = std::find_if(list.begin(), list.end(), [&](const Action& a) { return to_string(a) == action; });
  EXPECT_NE(at, list.end()) << action;
  return static_cast<std::size_t>(at - list.begin());
}

void without(std::vector<Action>& list, std::string_view action) {
  list.erase(list.begin() + static_cast<std::ptrdiff_t>(find(list, action)));
}

void swapped(std::vector<Action>& list, std::string_view a, std::string_view b) {
  std::swap(list[find(list, a)], list[find(list, b)]);
}

struct Damaged {
  std::function<void(Schedule&)> damage;
  std::string_view reason;
};

TEST(ScheduleCheck, DamageIsFound) {
  const auto lacks = [](std::size_t rank, std::string_view action) {
    return [=](Schedule& s) { without(s.ranks[rank], action); };
  };
  const auto swaps = [](std::size_t rank, std::string_view a, std::string_view b) {
    return [=](Schedule& s) { swapped(s.ranks[rank], a, b); };
  };
  const auto gains = [](std::size_t rank, const Action& action) {
    return [=](Schedule& s) { s.ranks[rank].push_back(action); };
  };
  const std::vector<Damaged> all = {
      {lacks(0, "F0.2"), "F0.2 is missing"},
      {lacks(1, "B1.1"), "B1.1 is missing"},
      {lacks(0, "W0.1"), "W0.1 is missing"},
      {lacks(0, "sa0.2"), "sa0.2 is missing"},
      {lacks(1, "ra1.0"), "ra1.0 is missing"},
      {lacks(1, "sg1.1"), "sg1.1 is missing"},
      {lacks(0, "rg0.2"), "rg0.2 is missing"},
      {gains(0, {ActionKind::forward, 0, 0}), "F0.0 stands twice"},
      {gains(0, {ActionKind::send_activation, 0, 1}), "sa0.1 stands twice"},
      {swaps(0, "B0.0", "W0.0"), "W0.0 comes before its input gradient"},
      {swaps(0, "F0.0", "sa0.0"), "sa0.0 comes before its forward"},
      {swaps(1, "B1.0", "sg1.0"), "sg1.0 comes before its input gradient"},
      {swaps(1, "F1.0", "B1.0"), "B1.0 comes before its forward"},
      {swaps(1, "ra1.0", "F1.0"), "F1.0 comes before its activation is received"},
      {swaps(0, "rg0.0", "B0.0"), "B0.0 comes before its gradient is received"},
      {swaps(0, "W0.0", "W0.1"), "order of weight gradients"},
      {gains(1, {ActionKind::forward, 0, 0}), "belongs to rank"},
      {gains(1, {ActionKind::forward, 7, 0}), "F7.0 is outside"},
      {gains(0, {ActionKind::forward, 0, 3}), "F0.3 is outside"},
      {gains(0, {ActionKind::send_gradient, 0, 0}), "sg0.0 has no other rank at its other end"},
      {gains(1, {ActionKind::recv_gradient, 1, 0}), "rg1.0 has no other rank at its other end"},
      {[](Schedule& s) { s.ranks[0].back().with_next = true; }, "opens a cell that no computation follows"},
      {[](Schedule& s) { s.stages = 3; }, "no rank computes stage 2"},
      {[](Schedule& s) { s.microbatches = 4; }, "W1.3 is missing"},
      {[](Schedule& s) { s.ranks.clear(); }, "0 ranks"},
  };
  for (const Damaged& one : all) {
    const std::string text = faults_after(one.damage);
    EXPECT_NE(text.find(one.reason), std::string::npos) << one.reason << " is not in:\n" << text;
  }
}

TEST(ScheduleCheck, MessagesInAnotherOrderAreFound) {
  // Both receives come before both forwards, so that only the order of messages is wrong.
  const std::string text = faults_after([](Schedule& s) {
    for (const char* action : {"ra1.0", "ra1.1"}) without(s.ranks[1], action);
    s.ranks[1].insert(s.ranks[1].begin(), {{ActionKind::recv_activation, 1, 1}, {ActionKind::recv_activation, 1, 0}});
  });
  EXPECT_NE(text.find("message 0 from rank 0 to rank 1: sa0.0 is sent where sa0.1 is received"), std::string::npos)
      << text;
}

TEST(ScheduleCheck, DeadlockIsFound) {
  // Each rank sends before it receives what the other one sends: fine with buffers, not under NCCL's rules.
  const Schedule schedule = parse_schedule(
      "schedule crossed stages 2 microbatches 2 ranks 2\n"
      "0: F0.0 sa0.0 F0.1 sa0.1 rg0.0 B0.0 W0.0 rg0.1 B0.1 W0.1\n"
      "1: ra1.0 F1.0 B1.0 sg1.0 W1.0 ra1.1 F1.1 B1.1 sg1.1 W1.1\n");
  const ScheduleReport report = check_schedule(schedule);
  ASSERT_EQ(report.faults.size(), 2U);
  EXPECT_EQ(report.faults[0], "deadlock: rank 0 waits at sa0.1 for rank 1");
  EXPECT_EQ(report.faults[1], "deadlock: rank 1 waits at sg1.0 for rank 0");
  EXPECT_GT(predict(schedule, {}).makespan, 0);  // the same lists run when sends never block
}

}  // namespace
}  // namespace shoestring
