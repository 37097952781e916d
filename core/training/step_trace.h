// What the ranks of a run did in a few of its steps, action by action: a time line in Chrome's trace format (load
// RUN/trace.json into ui.perfetto.dev or chrome://tracing), and the bubble that came out beside the one that the
// schedule's simulation expects at the times the stages really took.
//
// The first step of an attempt is left out: it warms caches and pages. Clocks of different machines are set equal where
// all ranks have just heard the same decision, so between machines times are off by a message's latency.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "core/budget/ledger.h"
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
static_assert(std::is_trivially_copyable_v<TraceEvent>);

class StepTrace {
 public:
  /// Records `wanted` steps, those after the first; all must outlive it.
  StepTrace(Communicator& world, const Layout& layout, std::int64_t wanted);

  /// Before and after each step, by every rank.
  void begin_step();
  void stepped(std::int64_t step, const Pass& pass);
  /// No step is still to be recorded, or none will come: what there is, on rank 0, all ranks' in turn. Collective,
  /// once.
  bool due() const { return !gathered_ && seen_ > wanted_; }
  bool any() const { return !gathered_ && seen_ > 1; }
  std::vector<TraceEvent> gather();

 private:
  Communicator& world_;
  std::int64_t wanted_;
  std::int64_t seen_ = 0;  // steps of this attempt
  double origin_ = 0;
  bool gathered_ = false;
  std::vector<TraceEvent> own_;
};

/// The time line: a process for each place on the data axis, a thread for each rank of its pipeline.
std::string chrome_trace(const std::vector<TraceEvent>& events, const MeshShape& shape);

/// Of the groups recorded; nothing without a pipeline or a whole group.
std::optional<PipelineUse> pipeline_use(const std::vector<TraceEvent>& events, const Layout& layout);

}  // namespace shoestring
