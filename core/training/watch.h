// The watch that the ranks of a run keep over each other (parallel/watchdog.h): what a rank is at, how long it may
// take, and how an error of one rank reaches all. A rank by itself is not watched: nobody waits for it.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>

#include "core/recipe/recipe.h"
#include "core/training/patience.h"
#include "parallel/communicator.h"
#include "parallel/watchdog.h"

namespace shoestring {

inline constexpr const char* kRanksFolder = "ranks";  ///< RUN/ranks: what each rank is doing, while a run goes on

class Watch {
 public:
  /// `world` and what is split from it from here on is watched, and must outlive this.
  Watch(Communicator& world, const Recipe& recipe);

  /// Begins, without what an earlier attempt left in the folder. Collective: throws as check_shared_folder, on every
  /// rank, where a rank does not see this one, and then nobody is watched.
  void begin(const std::filesystem::path& run_directory);

  // What this rank is at from here on.
  void steps(const std::string& what) { signs_.enter(what, patience_.steps()); }
  void works_on_files(const std::string& what) { signs_.enter(what, patience_.files()); }
  /// The others do not: they are at the next step, and wait.
  void works_on_files_alone(const std::string& what) {
    WaitLimits limits = patience_.files();
    limits.alone = true;
    signs_.enter(what, limits);
  }

  // What it took.
  void new_phase() { patience_.new_phase(); }
  void step_took(double seconds) { patience_.step_took(seconds); }
  void files_take(double seconds) {
    patience_.files_take(seconds);
    grace_ = patience_.grace();
  }

  /// This rank ends with `error`. Unless the others know, they are told.
  void tell_others(const Error& error);
  /// Whether every rank ends, and can still be reached: none is stuck.
  bool all_end() const;
  /// That others may take to come to where this rank is, once one has ended.
  double patience_for_others() const { return grace_ + patience_.steps().progress_seconds; }
  /// By the others: until the leading rank, 0, is gone or has had its time: it saves, and its end is the end of all.
  /// Where begin() threw, by all: until the leading one comes here.
  void await_leader() const noexcept;

 private:
  Communicator& world_;
  int rank_;
  Patience patience_;
  std::atomic<double> grace_;  // read by the watchdog's thread
  VitalSigns signs_;
  Watched watched_;
  std::filesystem::path folder_;
  std::unique_ptr<Watchdog> watchdog_;
};

}  // namespace shoestring
