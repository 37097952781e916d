// Errors: one exception type that carries the process exit code, and `check`, which throws it with values.
//
// An Error ends the run (or the test): it is thrown where a fault is found and caught once, in the command's main,
// which prints the text and returns the code. `check` is for faults a user or the outside world can cause as well as
// for broken contracts between our own functions; the default code says "a bug of ours".
#pragma once

#include <fmt/core.h>

#include <concepts>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

/// What has a to_string() is formatted by it: a check that holds makes no text of its values.
template <class Value>
requires requires(const Value& value) {
  { value.to_string() } -> std::same_as<std::string>;
}
struct fmt::formatter<Value> : fmt::formatter<std::string_view> {
  auto format(const Value& value, fmt::format_context& context) const {
    return fmt::formatter<std::string_view>::format(value.to_string(), context);
  }
};

namespace shoestring {

/// Exit codes of the program: sysexits where one fits, an own block from 80. 1, 2, 110 and 124-165 stay free for
/// mpirun, timeout and signals.
enum class ExitCode : int {
  done = 0,
  usage = 64,          ///< the command line is wrong
  bad_data = 65,       ///< a file's content is wrong
  missing_input = 66,  ///< a file is not there
  bug = 70,            ///< a contract inside the program is broken
  io = 74,             ///< reading or writing failed (disk full, permission)
  preempted = 75,      ///< saved on a signal; run the same command again
  bad_recipe = 78,     ///< the recipe is wrong
  hang = 80,
  non_finite = 81,
  corrupt_checkpoint = 82,
  no_progress = 83,
  budget_spent = 84,
  replica_mismatch = 85,
};

/// What ends a run. The text says what, where and what to do; the code becomes the process's exit code.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& text) : std::runtime_error(text), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// Any exception as what the command's main says of it. What the standard library throws because the system refused
/// something (a thread, a folder's listing, memory) is no bug of ours: Error(io) with the limit to look at.
Error as_error(const std::exception& exception);

/// Throws Error(code) with the formatted text.
template <class... Values>
[[noreturn]] void fail(ExitCode code, fmt::format_string<Values...> text, Values&&... values) {
  throw Error(code, fmt::format(text, std::forward<Values>(values)...));
}

/// Throws Error(bug) with the formatted text unless `holds`. The values belong in the text.
template <class... Values>
void check(bool holds, fmt::format_string<Values...> text, Values&&... values) {
  if (!holds) [[unlikely]] {
    throw Error(ExitCode::bug, fmt::format(text, std::forward<Values>(values)...));
  }
}

}  // namespace shoestring
