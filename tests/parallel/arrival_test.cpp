#include "parallel/arrival.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <system_error>

namespace shoestring {
namespace {

TEST(ArrivalWait, SaysThatItWaitsAndLeavesWhenAsked) {
  std::promise<std::string> said, left;
  std::atomic<bool> asked = false;
  {
    const ArrivalWait wait({.say_after_seconds = 0,
                            .asked = [&] { return asked.load(); },
                            .say = [&](const std::string& line) { said.set_value(line); },
                            .leave = [&](const std::string& line) { left.set_value(line); }});
    const std::string line = said.get_future().get();
    EXPECT_NE(line.find("waiting for the other ranks"), std::string::npos) << line;
    EXPECT_NE(line.find("process "), std::string::npos) << line;
    asked = true;
    EXPECT_NE(left.get_future().get().find("left as asked"), std::string::npos);
  }
}

TEST(ArrivalWait, EndsWithTheWait) {
  constexpr double kNever = 1e9;
  const ArrivalWait wait({.say_after_seconds = kNever,
                          .say = [](const std::string& line) { ADD_FAILURE() << line; },
                          .leave = [](const std::string& line) { ADD_FAILURE() << line; }});
}

TEST(ArrivalWait, DoesWithoutAThread) {
  const ArrivalWait wait({.say = {}, .leave = {}}, [](const std::function<void()>&) -> std::thread {
    throw std::system_error(EAGAIN, std::generic_category());
  });
}

}  // namespace
}  // namespace shoestring
