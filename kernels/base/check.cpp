#include "kernels/base/check.h"

#include <fmt/format.h>

#include <cerrno>
#include <filesystem>
#include <new>
#include <system_error>

#include "kernels/base/file.h"
#include "kernels/base/limits.h"
#include "kernels/base/thread.h"

// What check.h formats values by; fmt/core.h, which everything includes, only declares it.
template fmt::format_context::iterator fmt::formatter<fmt::string_view>::format(const fmt::string_view&,
                                                                                fmt::format_context&) const;

namespace shoestring {
namespace {

std::string reason_of(const std::error_code& code) {
  const bool of_the_system = code.category() == std::generic_category() || code.category() == std::system_category();
  if (!of_the_system) return code.message();
  if (code.value() == EAGAIN) return "no more threads or processes can be made; " + thread_limits();
  if (code.value() == ENOMEM) return "out of memory; " + memory_limits();
  return system_reason(code.value());
}

}  // namespace

Error as_error(const std::exception& exception) {
  if (const auto* error = dynamic_cast<const Error*>(&exception)) return *error;
  if (dynamic_cast<const std::bad_alloc*>(&exception) != nullptr ||
      dynamic_cast<const std::length_error*>(&exception) != nullptr) {
    return {ExitCode::io, "out of memory; " + memory_limits()};
  }
  if (const auto* refused = dynamic_cast<const std::filesystem::filesystem_error*>(&exception)) {
    const std::string place = refused->path1().empty() ? "" : refused->path1().string() + ": ";
    return {ExitCode::io, place + "the system refused: " + reason_of(refused->code())};
  }
  if (const auto* refused = dynamic_cast<const std::system_error*>(&exception)) {
    return {ExitCode::io, "the system refused: " + reason_of(refused->code())};
  }
  return {ExitCode::bug, std::string("unexpected: ") + exception.what()};
}

}  // namespace shoestring
