#include "core/budget/warning.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>

#include "core/recipe/units.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {

std::vector<double> warn_shares(const BudgetSpec& budget) {
  std::vector<double> shares;
  if (budget.warn_at.size() == 1 && budget.warn_at[0] == "none") return shares;
  for (const std::string& text : budget.warn_at) {
    const Quantity share = parse_quantity(text, Unit::fraction);
    if (!share.mistake.empty() || share.value <= 0 || share.value > 1) {
      fail(ExitCode::bad_recipe,
           "budget.warn_at holds '{}': write shares of the cap above 0% and up to 100%, as 50%, 80%, or none",
           text.substr(0, 80));
    }
    shares.push_back(share.value);
  }
  std::sort(shares.begin(), shares.end());
  return shares;
}

CapWarnings::CapWarnings(std::vector<double> shares, Cap cap, double before_gpu_hours, std::string command)
    : left_(std::move(shares)), cap_(std::move(cap)), command_(std::move(command)) {
  std::sort(left_.begin(), left_.end(), std::greater<>());
  pop(before_gpu_hours / cap_.gpu_hours);
}

CapWarnings::~CapWarnings() { reap(); }

std::optional<double> CapWarnings::pop(double share) {
  std::optional<double> highest;
  while (!left_.empty() && share >= left_.back()) {
    highest = left_.back();
    left_.pop_back();
  }
  return highest;
}

std::optional<CapWarnings::Told> CapWarnings::passed(const std::string& run, const Spent& now) {
  const std::optional<double> share = pop(now.gpu_hours / cap_.gpu_hours);
  if (!share) return std::nullopt;
  Told told;
  told.line = fmt::format("{:.4g}% of the cap is spent: {} of {} GPU-hours ({})", 100 * *share, rounded(now.gpu_hours),
                          rounded(cap_.gpu_hours), cap_.from);
  if (now.usd > 0) told.line += fmt::format(", ${}", rounded(now.usd));
  told.command_error = start_command(run, *share, now);
  return told;
}

std::string CapWarnings::start_command(const std::string& run, double share, const Spent& now) {
  if (command_.empty()) return {};
  reap();
  std::map<std::string, std::string> ours = {{"SHOESTRING_RUN", run},
                                             {"SHOESTRING_SHARE", fmt::format("{}", share)},
                                             {"SHOESTRING_SPENT_GPU_HOURS", fmt::format("{}", now.gpu_hours)},
                                             {"SHOESTRING_CAP_GPU_HOURS", fmt::format("{}", cap_.gpu_hours)}};
  if (now.usd > 0) ours["SHOESTRING_SPENT_USD"] = fmt::format("{}", now.usd);
  std::vector<std::string> texts;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!ours.contains(text.substr(0, text.find('=')))) texts.push_back(text);
  }
  for (const auto& [key, value] : ours) texts.push_back(key + "=" + value);
  std::vector<char*> environment;
  for (std::string& text : texts) environment.push_back(text.data());
  environment.push_back(nullptr);
  char shell[] = "/bin/sh";
  char option[] = "-c";
  char* arguments[] = {shell, option, command_.data(), nullptr};
  // What a run ignores (signals.h) the tools of a shell rely on: `yes | head` ends by SIGPIPE.
  sigset_t usual;
  ::sigemptyset(&usual);
  for (const int number : {SIGPIPE, SIGXFSZ}) ::sigaddset(&usual, number);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setsigdefault(&attributes, &usual);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  pid_t child = 0;
  const int error = ::posix_spawn(&child, shell, nullptr, &attributes, arguments, environment.data());
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return system_reason(error);
  children_.push_back(child);
  return {};
}

// Those that are gone leave the table of processes.
void CapWarnings::reap() {
  std::erase_if(children_, [](pid_t child) { return ::waitpid(child, nullptr, WNOHANG) != 0; });
}

}  // namespace shoestring
