#include "parallel/schedule.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

TEST(Schedule, TextFormReadsBack) {
  for (const ScheduleBuilder& builder : schedule_builders()) {
    const Schedule schedule = make_schedule(builder.name, {2, 4, builder.name == "interleaved" ? 2 : 1});
    EXPECT_EQ(parse_schedule(to_string(schedule)), schedule) << builder.name;
  }
}

TEST(Schedule, OneForwardOneBackwardInText) {
  EXPECT_EQ(to_string(make_schedule("1f1b", {2, 3})),
            "schedule 1f1b stages 2 microbatches 3 ranks 2\n"
            "0: F0.0 sa0.0 F0.1 sa0.1 rg0.0 B0.0 W0.0 F0.2 sa0.2 rg0.1 B0.1 W0.1 rg0.2 B0.2 W0.2\n"
            "1: ra1.0 ra1.1 F1.0 B1.0 sg1.0 W1.0 F1.1 ra1.2 B1.1 sg1.1 W1.1 F1.2 B1.2 sg1.2 W1.2\n");
}

TEST(Schedule, CellsAreMarked) {
  const std::string text = to_string(make_schedule("dualpipev", {2, 4}));
  EXPECT_NE(text.find("F0.3& B3.1& W3.1"), std::string::npos) << text;
}

void expect_rejected(std::string_view text, std::string_view word, int line) {
  try {
    parse_schedule(text);
    ADD_FAILURE() << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_recipe);
    const std::string message = error.what();
    EXPECT_NE(message.find(fmt::format("line {}", line)), std::string::npos) << message;
    EXPECT_NE(message.find(fmt::format("'{}'", word)), std::string::npos) << message;
  }
}

TEST(Schedule, TextWithMistakesIsRejected) {
  expect_rejected("shedule a", "shedule", 1);
  expect_rejected("schedule a stages x", "x", 1);
  expect_rejected("schedule a stages 1 microbatches 1 ranks 1\n0: F0", "F0", 2);
  expect_rejected("schedule a stages 1 microbatches 1 ranks 1\n0: F0.0\nX0.0", "X0.0", 3);
  expect_rejected("schedule a stages 1 microbatches 1 ranks 1\n1: F0.0", "1:", 2);
  expect_rejected("schedule a stages 1 microbatches 1 ranks 2\n0: F0.0", "2", 2);
  expect_rejected("schedule a stages 1 microbatches 1 ranks 1\n0: F0.-1", "-1", 2);
  expect_rejected("", "", 1);
}

TEST(Schedule, ImpossibleRequestsAreRefusedWithTheReason) {
  const auto message = [](std::string_view name, const ScheduleRequest& request) -> std::string {
    try {
      make_schedule(name, request);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_recipe);
      return error.what();
    }
    return {};
  };
  EXPECT_NE(message("1F1B", {}).find("known are 1f1b, interleaved"), std::string::npos);
  EXPECT_NE(message("dualpipev", {4, 7}).find("2 micro-batches per rank"), std::string::npos);
  EXPECT_NE(message("interleaved", {4, 7, 2}).find("multiple"), std::string::npos);
  EXPECT_NE(message("1f1b", {4, 7, 2}).find("interleaved"), std::string::npos);
  EXPECT_FALSE(message("zb_v", {0, 7}).empty());
}

}  // namespace
}  // namespace shoestring
