// The threads of one CPU device: a fixed team that runs one loop at a time.
//
// One team per process (or per rank, when ranks are threads of one process): two teams, or a team beside OpenMP's,
// spin against each other. The caller is worker 0. Idle workers spin briefly, then sleep.
//
// Rule for every op: its result does not depend on the number of workers. A loop splits outputs, never a sum; where a
// sum must be split, it is split into parts of a size that the op fixes, and the parts are added in order.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "kernels/base/thread.h"

namespace shoestring {

class Workers {
 public:
  /// `count` threads, the caller included; 0 takes one per usable core. Where the system allows no more threads, those
  /// begun end and Error(io) names how many were wanted and which limits to look at.
  explicit Workers(int count = 0, const ThreadMaker& make = make_thread);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  int count() const { return count_; }
  /// Cores this process may keep busy: those it may run on, or fewer where a control group's quota of CPU time says so
  /// (rounded down: a thread too many would make all others wait), at least 1.
  static int usable_cores();
  static int usable_cores(std::optional<double> quota);
  /// The machine and those cores: equal for two processes that would compete for the same cores.
  static std::string cores_name();

  /// Runs body(worker) once on every worker and returns when all are done. The first exception is rethrown here.
  /// Loops of one team do not nest, and one thread at a time starts them: anything else throws Error(bug).
  void run(const std::function<void(int worker)>& body);

  /// Splits [0, items) into one contiguous range per worker, at multiples of `grain`, and runs body(begin, end) on
  /// each non-empty one. Small loops (items <= grain) run on the caller.
  void split(std::int64_t items, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body);

  /// Runs body(item) for every item, handing items out one by one: for items of uneven cost.
  void each(std::int64_t items, const std::function<void(std::int64_t)>& body);

 private:
  struct Team;
  std::unique_ptr<Team> team_;
  int count_ = 1;
};

}  // namespace shoestring
