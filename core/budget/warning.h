// Warnings at shares of the cap (budget.warn_at): each is told once in the life of a run, by one line, and by a command
// where the person who started the run gave one. The command is no recipe key: a recipe that somebody sent runs
// nothing.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "core/budget/price.h"
#include "core/recipe/recipe.h"

namespace shoestring {

/// The shares of budget.warn_at, rising: {0.5, 0.8}; empty for "none". Throws Error(bad_recipe) for what is no share
/// above 0% and up to 100%.
std::vector<double> warn_shares(const BudgetSpec& budget);

class CapWarnings {
 public:
  struct Told {
    std::string line;
    std::string command_error;  ///< why the command could not be started; empty when it was, or there is none
  };

  /// `before_gpu_hours`: of earlier attempts; what that passed was told then. `command`: for /bin/sh; empty: none.
  CapWarnings(std::vector<double> shares, Cap cap, double before_gpu_hours, std::string command);
  ~CapWarnings();
  CapWarnings(const CapWarnings&) = delete;
  CapWarnings& operator=(const CapWarnings&) = delete;

  /// What is to be said when a share was passed since the last call; of several the highest. The command runs beside
  /// the run, which neither waits for it nor hears its exit code, with SHOESTRING_RUN, SHOESTRING_SHARE,
  /// SHOESTRING_SPENT_GPU_HOURS, SHOESTRING_CAP_GPU_HOURS and, where there is a price, SHOESTRING_SPENT_USD in its
  /// environment. `now.usd` = 0: no price.
  std::optional<Told> passed(const std::string& run, const Spent& now);

 private:
  std::optional<double> pop(double share);
  std::string start_command(const std::string& run, double share, const Spent& now);
  void reap();

  std::vector<double> left_;  // falling: the next one is the last
  Cap cap_;
  std::string command_;
  std::vector<pid_t> children_;
};

}  // namespace shoestring
