#include "core/training/action_marks.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"

namespace shoestring {
namespace {

std::vector<TraceEntry> entries() {
  std::vector<TraceEntry> all;
  for (const ActionKind kind : {ActionKind::forward, ActionKind::send_activation, ActionKind::backward_input}) {
    all.push_back(
        {.action = {kind, 0, 0}, .start_seconds = 1, .end_seconds = 2, .wait_seconds = 0.5, .own_seconds = 1});
  }
  return all;
}

TEST(ActionMarks, ACpuNeedsNone) {
  Workers workers(1);
  const Stream stream(workers);
  ActionMarks marks;
  marks.mark(stream);
  EXPECT_TRUE(marks.seconds().empty());
  std::vector<TraceEntry> untouched = entries();
  take_times(marks.seconds(), untouched);
  EXPECT_EQ(untouched[0].start_seconds, 1);
}

TEST(ActionMarks, WhatComputesTookFromMarkToMark) {
  std::vector<TraceEntry> timed = entries();
  take_times(std::vector<double>{0, 0.25, 0.5, 4}, timed);
  EXPECT_EQ(timed[0].start_seconds, 0);
  EXPECT_EQ(timed[0].end_seconds, 0.25);
  EXPECT_EQ(timed[0].own_seconds, 0.25);
  EXPECT_EQ(timed[0].wait_seconds, 0.5);
  EXPECT_EQ(timed[1].start_seconds, 1) << "a message is no work of the device";
  EXPECT_EQ(timed[2].start_seconds, 0.5);
  EXPECT_EQ(timed[2].own_seconds, 3.5);
}

TEST(ActionMarks, MarksAndEntriesAgree) {
  std::vector<TraceEntry> timed = entries();
  EXPECT_THROW(take_times(std::vector<double>{0, 1}, timed), Error);
  EXPECT_THROW(take_times(std::vector<double>{0, 1, 2, 3, 4, 5}, timed), Error);
}

}  // namespace
}  // namespace shoestring
