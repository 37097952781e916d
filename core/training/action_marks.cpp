#include "core/training/action_marks.h"

#include "kernels/base/check.h"

namespace shoestring {

void ActionMarks::mark(const Stream& stream) {
  if (stream.device().kind == DeviceKind::cpu) return;
  if (used_ == events_.size()) events_.emplace_back(stream.device());
  events_[used_++].record(stream);
}

std::vector<double> ActionMarks::seconds() const {
  std::vector<double> all;
  for (std::size_t i = 0; i < used_; ++i) all.push_back(events_.front().seconds_until(events_[i]));
  return all;
}

void take_times(std::span<const double> seconds, std::vector<TraceEntry>& entries) {
  if (seconds.empty()) return;
  std::size_t next = 0;
  for (TraceEntry& entry : entries) {
    if (!entry.action.computes()) continue;
    check(next + 2 <= seconds.size(), "{} marks for {} entries of a trace", seconds.size(), entries.size());
    entry.start_seconds = seconds[next++];
    entry.end_seconds = seconds[next++];
    entry.own_seconds = entry.end_seconds - entry.start_seconds;
  }
  check(next == seconds.size(), "{} marks, of which {} belong to entries of a trace", seconds.size(), next);
}

}  // namespace shoestring
