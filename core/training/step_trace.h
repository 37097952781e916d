// What the ranks of a run did in a few of its steps, action by action, and when they waited, and for what: a time line
// in Chrome's trace format (load RUN/trace.json into ui.perfetto.dev or chrome://tracing), and the bubble that came out
// beside the one that the schedule's simulation expects at the times the stages really took.
//
// Waits are the stretches of the meter that the report adds up, so the two agree; actions are timed by the pipeline.
//
// The first step of an attempt is left out: it warms caches and pages. Clocks of different machines are set equal where
// all ranks have just heard the same decision, so between machines times are off by a message's latency.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/budget/ledger.h"
#include "core/budget/meter.h"
#include "core/training/layout.h"
#include "core/training/pass.h"
#include "parallel/communicator.h"

namespace shoestring {

/// An action as it travels between ranks. Seconds since the first step that is recorded.
struct TraceEvent {
  std::int64_t step = 0;
  std::int32_t rank = 0;
  std::int32_t group = 0;  ///< reduction group
  std::int32_t kind = 0;   ///< an ActionKind
  std::int32_t stage = 0;
  std::int32_t microbatch = 0;
  std::int32_t place = 0;  ///< in the rank's list
  double begin_seconds = 0;
  double end_seconds = 0;
  double own_seconds = 0;   ///< as TraceEntry
  double wait_seconds = 0;  ///< before it began

  bool operator==(const TraceEvent&) const = default;
};

/// A stretch of time in which a rank had nothing to compute. Seconds as in TraceEvent.
struct TraceWait {
  std::int32_t rank = 0;
  std::int32_t category = 0;  ///< a Category: bubble, exposed_communication or data_wait
  double begin_seconds = 0;
  double end_seconds = 0;

  bool operator==(const TraceWait&) const = default;
};

struct RunTrace {
  std::vector<TraceEvent> events;
  std::vector<TraceWait> waits;
};

class StepTrace {
 public:
  /// Records `wanted` steps, those after the first, and what `meter` tells in and between them; all must outlive it.
  StepTrace(Communicator& world, const Layout& layout, std::int64_t wanted, Meter& meter);
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  /// Before and after each step, by every rank.
  void begin_step();
  void stepped(std::int64_t step, const Pass& pass);
  /// No step is still to be recorded, or none will come: what there is, on rank 0, all ranks' in turn. Collective,
  /// once.
  bool due() const { return !gathered_ && seen_ > wanted_; }
  bool any() const { return !gathered_ && seen_ > 1; }
  RunTrace gather();

 private:
  bool recording() const { return !gathered_ && origin_ && seen_ <= wanted_; }

  Communicator& world_;
  Meter& meter_;
  std::int64_t wanted_;
  std::int64_t seen_ = 0;         // steps of this attempt
  std::optional<double> origin_;  // of its seconds, since the start of the process
  bool gathered_ = false;
  RunTrace own_;
};

/// The time line: a process for each place on the data axis, and for each rank of its pipeline a thread of actions and
/// one of waits.
std::string chrome_trace(const RunTrace& trace, const MeshShape& shape);

/// Of the groups recorded; nothing without a pipeline or a whole group.
std::optional<PipelineUse> pipeline_use(const std::vector<TraceEvent>& events, const Layout& layout);

}  // namespace shoestring
