// A mark in a stream: times work on a device, and lets one stream wait for another.
#pragma once

#include <chrono>

#include "kernels/base/device.h"

namespace shoestring {

/// On a CPU stream, whose work is done when a call returns, a mark is the time of day. Move-only.
class Event {
 public:
  explicit Event(Device device);
  ~Event();
  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;

  /// Marks the end of what `stream`, on the event's device, was given so far.
  void record(const Stream& stream);
  /// Work given to `stream` from now on starts after the mark.
  void block(const Stream& stream) const;
  /// Waits until the mark is reached.
  void synchronize() const;
  /// Whether the mark is reached; returns at once. True before the first `record`, and always on a CPU. Throws what
  /// went wrong on the device.
  bool reached() const;
  /// Seconds from this mark to a later one of the same device; both must be reached.
  double seconds_until(const Event& later) const;

 private:
  Device device_;
  void* native_ = nullptr;
  std::chrono::steady_clock::time_point time_;
};

}  // namespace shoestring
