// What a rank is doing, and whether it gets on: told by the thread that trains, read by the rank's watchdog
// (watchdog.h), which works while that thread is stuck.
//
// Every message that came through and every action of a schedule is progress. A rank that is condemned, by its own
// watchdog or another's, hears of it where it waits for a message or begins an action: there the verdict is thrown.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "kernels/base/check.h"
#include "parallel/schedule.h"

namespace shoestring {

/// Why the run ends on every rank.
struct Verdict {
  ExitCode code = ExitCode::hang;
  int culprit = -1;  ///< the rank that is stuck or failed
  int author = -1;   ///< the rank that says so
  std::string text;

  bool operator==(const Verdict&) const = default;
};

/// How long a rank may be ...
struct WaitLimits {
  double progress_seconds = 0;  ///< without progress, while its process lives
  double sign_seconds = 0;      ///< without a sign of its process: stopped, or stuck in the operating system
  bool alone = false;           ///< the others are at something shorter, and wait for this rank as long

  bool operator==(const WaitLimits&) const = default;
};

class VitalSigns {
 public:
  // By the training thread.

  /// What the rank is at from here on, and how long that may take.
  void enter(std::string phase, const WaitLimits& limits);
  /// Begins an action of a schedule: progress. Throws as obey.
  void act(const Action& action);
  /// Waits for a message of `peer`, a rank of the world, since a while; `what` names the message.
  void wait(int peer, std::string what);
  /// A message came through: progress.
  void go_on();
  /// Throws Error(verdict) where there is one: once, so that what follows may still save.
  void obey();
  /// Whether it was thrown.
  bool heard() const { return heard_; }
  std::optional<Verdict> verdict() const;

  // By the watchdog.

  /// A watchdog is there: from here on waits rely on it.
  void watch() { watched_ = true; }
  bool watched() const { return watched_; }
  struct Reading {
    std::int64_t progress = 0;
    WaitLimits limits;
    int waits_for = -1;  ///< rank of the world; -1: it does not wait, or not long
    std::string doing;   ///< "step 5, F1.3, receiving ..."
  };
  Reading read() const;
  void condemn(const Verdict& verdict);
  bool condemned() const { return condemned_; }

 private:
  mutable std::mutex mutex_;
  std::string phase_ = "starting";
  WaitLimits limits_;
  std::optional<Action> action_;  // since the phase began
  int waits_for_ = -1;
  std::string waits_what_;
  std::optional<Verdict> verdict_;

  std::atomic<std::int64_t> progress_{0};
  std::atomic<bool> watched_{false};
  std::atomic<bool> waits_{false};
  std::atomic<bool> condemned_{false};
  std::atomic<bool> heard_{false};
};

}  // namespace shoestring
