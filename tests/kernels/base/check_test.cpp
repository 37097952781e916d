#include "kernels/base/check.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(Check, PassesAndThrowsWithValues) {
  EXPECT_NO_THROW(check(true, "never built {}", 1));
  try {
    check(2 + 2 == 5, "{} is not {}", 4, 5);
    FAIL() << "check let a broken contract pass";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "4 is not 5");
    EXPECT_EQ(error.code(), ExitCode::bug);
  }
}

TEST(Check, FailCarriesTheExitCode) {
  try {
    fail(ExitCode::budget_spent, "cap of {} GPU-hours", 0.5);
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), 84);
    EXPECT_STREQ(error.what(), "cap of 0.5 GPU-hours");
  }
}

TEST(Check, WhatTheSystemRefusesIsNoBug) {
  EXPECT_EQ(as_error(Error(ExitCode::hang, "stuck")).code(), ExitCode::hang);
  EXPECT_EQ(as_error(std::bad_alloc()).code(), ExitCode::io);
  EXPECT_EQ(as_error(std::length_error("vector")).code(), ExitCode::io);
  const Error refused = as_error(std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again)));
  EXPECT_EQ(refused.code(), ExitCode::io);
  EXPECT_EQ(std::string(refused.what()).find("unexpected"), std::string::npos) << refused.what();
  EXPECT_EQ(as_error(std::out_of_range("map::at")).code(), ExitCode::bug);
}

}  // namespace
}  // namespace shoestring
