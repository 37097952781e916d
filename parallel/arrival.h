// While a process waits for the other ranks of its launch to come, which MPI does in one call: says so, and hears a
// request to leave. Nothing else can be done about a rank that never arrives: no rank knows the others yet.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "kernels/base/thread.h"
#include "parallel/communicator.h"

namespace shoestring {

struct ArrivalSetting {
  double say_after_seconds = 10;
  /// Whether this process was asked to leave. Called, as all below, by the thread.
  std::function<bool()> asked = [] { return false; };
  std::function<void(const std::string& line)> say;
  /// Ends the process. Called once, as the last.
  std::function<void(const std::string& line)> leave;
};

/// For its life a thread looks after the wait; where the system refuses one, nobody does.
class ArrivalWait {
 public:
  explicit ArrivalWait(ArrivalSetting setting, const ThreadMaker& make = make_thread);
  ~ArrivalWait();
  ArrivalWait(const ArrivalWait&) = delete;
  ArrivalWait& operator=(const ArrivalWait&) = delete;

 private:
  void run();

  ArrivalSetting setting_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  bool all_there_ = false;
  std::thread thread_;
};

/// Says so on stderr after ten seconds; ends the process with ExitCode::preempted once `asked` says so.
ArrivalSetting arrival_setting(std::function<bool()> asked);

/// As join_world(), under an ArrivalWait. Later waits for other ranks that nobody watches hear the request too.
std::unique_ptr<Communicator> join_world(std::function<bool()> asked);

}  // namespace shoestring
