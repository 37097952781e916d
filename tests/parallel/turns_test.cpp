// Two computations that take turns: the order is that of their passes, whatever fails unwinds both, and time that the
// other has is not one's own.
#include "parallel/turns.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <thread>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

double no_time() { return 0; }

/// Says where it is, and passes after each letter.
std::function<void()> speller(Turns& turns, std::string& said, const std::string& letters) {
  return [&turns, &said, letters] {
    for (const char letter : letters) {
      said += letter;
      turns.pass();
    }
  };
}

TEST(Turns, FollowThePasses) {
  Turns turns;
  for (const auto& [first, second, wanted] :
       {std::tuple("abc", "123", "a1b2c3"), std::tuple("ab", "1234", "a1b234"), std::tuple("abcd", "1", "a1bcd"),
        std::tuple("", "12", "12"), std::tuple("ab", "", "ab")}) {
    std::string said;
    turns.run(speller(turns, said, first), speller(turns, said, second), no_time);
    EXPECT_EQ(said, wanted);
    EXPECT_FALSE(turns.running());
  }
}

TEST(Turns, APassOutsideComesBackAtOnce) {
  Turns turns;
  turns.pass();
  EXPECT_EQ(turns.current(), 0);
}

TEST(Turns, EachKnowsThatItIsIts) {
  Turns turns;
  std::string seen;
  const auto look = [&] {
    for (int i = 0; i < 2; ++i) {
      seen += std::to_string(turns.current());
      turns.pass();
    }
  };
  turns.run(look, look, no_time);
  EXPECT_EQ(seen, "0101");
  EXPECT_THROW(turns.run([&] { turns.run(look, look, no_time); }, look, no_time), Error);
}

/// Leaves a mark when it is destroyed.
struct Guard {
  explicit Guard(int& count) : count_(count) {}
  ~Guard() { ++count_; }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  int& count_;
};

// Whatever stands on either stack is destroyed, and what went wrong is what run() throws.
TEST(Turns, WhatOneThrowsUnwindsBoth) {
  for (const bool first_fails : {true, false}) {
    for (const bool begun : {true, false}) {  // the other one
      Turns turns;
      int unwound = 0;
      bool ended = false;
      const auto fails = [&] {
        const Guard guard(unwound);
        if (begun) turns.pass();
        throw std::runtime_error("broken");
      };
      const auto waits = [&] {
        const Guard guard(unwound);
        for (int i = 0; i < 3; ++i) turns.pass();
        ended = true;
      };
      const auto run = [&] { first_fails ? turns.run(fails, waits, no_time) : turns.run(waits, fails, no_time); };
      EXPECT_THROW(run(), std::runtime_error);
      EXPECT_FALSE(ended);
      EXPECT_EQ(unwound, first_fails && !begun ? 1 : 2);
      std::string said;  // and it can be used again
      turns.run(speller(turns, said, "a"), speller(turns, said, "1"), no_time);
      EXPECT_EQ(said, "a1");
    }
  }
}

TEST(Turns, TheTimeOfTheOtherIsNotOnesOwn) {
  Turns turns;
  double clock = 0;
  double own[2] = {};
  const auto works = [&](double seconds) {
    return [&, seconds] {
      for (int i = 0; i < 3; ++i) {
        clock += seconds;
        turns.pass();
      }
      own[turns.current()] = turns.own_seconds();
    };
  };
  turns.run(works(1), works(10), [&] { return clock; });
  EXPECT_EQ(own[0], 3);
  EXPECT_EQ(own[1], 30);
}

// A stack as deep as a thread's, one for each rank.
TEST(Turns, OfSeveralThreadsDoNotMeet) {
  std::vector<std::thread> threads;
  std::vector<std::string> said(4);
  for (std::string& text : said) {
    threads.emplace_back([&text] {
      Turns turns;
      const auto deep = [&] {
        volatile char large[1 << 20] = {};
        large[0] = 'x';
        turns.pass();
        text += large[0];
      };
      for (int i = 0; i < 50; ++i) turns.run(deep, deep, no_time);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : said) EXPECT_EQ(text, std::string(100, 'x'));
}

}  // namespace
}  // namespace shoestring
