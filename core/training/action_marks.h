// When a device did what it was given: marks in its stream before and after each action, which it passes in its own
// time. A host's clock around the same calls would time the giving.
#pragma once

#include <span>
#include <vector>

#include "kernels/base/event.h"
#include "parallel/pipeline.h"

namespace shoestring {

class ActionMarks {
 public:
  /// As many as there were actions are kept for the next time.
  void clear() { used_ = 0; }
  /// What `stream` was given so far ends here. Nothing on a CPU, where a call returns when its work is done.
  void mark(const Stream& stream);
  /// Of each mark since `clear`, since the first; the device must have passed them all.
  std::vector<double> seconds() const;

 private:
  std::vector<Event> events_;
  std::size_t used_ = 0;
};

/// Times of the entries that compute become those between two marks each; nothing where there are no marks.
void take_times(std::span<const double> seconds, std::vector<TraceEntry>& entries);

}  // namespace shoestring
