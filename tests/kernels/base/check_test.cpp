#include "kernels/base/check.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <new>
#include <system_error>

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
  const auto expect = [](const std::exception& thrown, std::initializer_list<const char*> parts) {
    const Error error = as_error(thrown);
    EXPECT_EQ(error.code(), ExitCode::io);
    for (const char* part : parts) EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find("unexpected"), std::string::npos) << error.what();
  };
  expect(std::bad_alloc(), {"out of memory", "memory.max", "`ulimit -v`"});
  expect(std::length_error("vector"), {"out of memory"});
  expect(std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again)),
         {"threads", "`ulimit -u`", "pids.max", "run.threads"});
  expect(std::system_error(std::make_error_code(std::errc::not_enough_memory)), {"out of memory", "memory.max"});
  expect(std::filesystem::filesystem_error("in recursive_directory_iterator", "some/folder",
                                           std::make_error_code(std::errc::too_many_files_open)),
         {"some/folder: ", "Too many open files", "`ulimit -n`"});
  EXPECT_EQ(as_error(std::out_of_range("map::at")).code(), ExitCode::bug);
}

}  // namespace
}  // namespace shoestring
