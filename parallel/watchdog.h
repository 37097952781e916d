// Finds the rank that is stopped or stuck, without messages: what hangs are the messages.
//
// A thread of each rank writes the rank's vital signs into a file of a folder that all ranks see (the run's), turn by
// turn. While a rank gets on, nobody reads them. One that waits beyond its limit looks at whom it waits for, and whom
// that one waits for, until it comes to a rank
//   - whose sign stands still: the process is stopped, or gone without a word;
//   - that waits for nobody and made no progress for its limit: stuck in what it is doing;
//   - that it has been at before: they wait for each other.
// The first to find one writes it down as the verdict. Every watchdog reads it and hands it to its rank, which throws
// it out of its wait (VitalSigns::obey): so whoever has whole weights saves them. A rank that fails alone tells the
// others the same way. A training thread that does not even hear the verdict is ended with its process.
//
// Time is counted in turns, each for at most twice what it should take: a machine that slept, a clock that was set, a
// core that was busy elsewhere are not taken for a hang.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "kernels/base/thread.h"
#include "parallel/communicator.h"
#include "parallel/rank_sign.h"
#include "parallel/vital_signs.h"

namespace shoestring {

struct WatchSetting {
  std::filesystem::path folder;
  double turn_seconds = 0.5;
  /// Seconds that the ranks have to save and leave, once there is a verdict. Called, as all below, by the thread.
  std::function<double()> grace = [] { return 5.0; };
  /// Whether this process was asked to save and leave, and what is called when another's was.
  std::function<bool()> asked = [] { return false; };
  std::function<void()> hear = [] {};
  /// Ends the process: its training thread hears nothing. Called once.
  std::function<void(const Verdict&)> end = [](const Verdict&) {};
};

class Watchdog {
 public:
  /// Of one rank, that tells `signs`, which must outlive it. Leaves the first sign. The folder is there
  /// (SignFolder::clear).
  Watchdog(int rank, VitalSigns& signs, WatchSetting setting);
  /// Takes the sign away.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// From here on a thread takes the turns.
  void start(const ThreadMaker& make = make_thread);
  /// One turn, `seconds` after the last.
  void turn(double seconds);

  /// By the training thread: this rank fails by itself, whatever the others do. False where a verdict was there before.
  bool report(ExitCode code, const std::string& text);

 private:
  /// Of another rank, since this one is stalled.
  struct Seen {
    RankSign sign;
    double still_seconds = 0;  // since its turn counted up
    bool there = false;
  };

  RankSign sign() const;
  void count(double seconds);
  void pass_request_on();
  std::optional<Verdict> look(double seconds);
  const Seen& see(int rank, double seconds);
  std::optional<Verdict> stuck(const RankSign& sign, const std::string& whom) const;
  Verdict hang(int culprit, const std::string& what) const;
  void carry_out(double seconds);
  void run();

  int rank_;
  VitalSigns& signs_;
  WatchSetting setting_;
  SignFolder folder_;
  std::string host_;
  VitalSigns::Reading reading_;  // of this turn
  std::int64_t turns_ = 0;
  double stalled_seconds_ = 0;
  double condemned_seconds_ = 0;
  bool request_passed_ = false;
  bool ended_ = false;
  std::map<int, Seen> seen_;

  std::mutex mutex_;
  std::condition_variable leaving_;
  bool leaves_ = false;
  std::thread thread_;
};

/// For its life `world`, and what is split from it meanwhile, tells `signs` of its waits. A world of one does not wait.
class Watched {
 public:
  Watched(Communicator& world, VitalSigns& signs);
  ~Watched();
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

 private:
  Communicator& world_;
};

}  // namespace shoestring
