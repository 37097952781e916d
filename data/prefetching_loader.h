// Batches made ready on a thread of their own, so that training does not wait for data.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "data/loader.h"
#include "kernels/base/thread.h"

namespace shoestring {

inline constexpr int kMostPrefetch = 1024;  ///< batches ready ahead: past this they only take memory

/// Delivers loader.fetch(range) for the ranges that `next_range` names, in that order, whatever `depth`. Belongs to one
/// consumer thread; `loader` outlives it.
class PrefetchingLoader {
 public:
  /// `next_range` is called on the background thread, up to `depth` ranges ahead of the consumer; nothing ends the
  /// stream. depth 0 fetches on the consumer's own thread; at most kMostPrefetch.
  /// Throws Error(io) naming the limits when the system allows no more threads.
  PrefetchingLoader(const Loader& loader, std::function<std::optional<SampleRange>()> next_range, int depth,
                    const ThreadMaker& make = make_thread);
  ~PrefetchingLoader();
  PrefetchingLoader(const PrefetchingLoader&) = delete;
  PrefetchingLoader& operator=(const PrefetchingLoader&) = delete;

  /// The next batch, valid until the next call; nullptr at the end. A failed fetch is thrown here, in its turn.
  const Batch* next();

  /// Seconds the consumer has spent waiting in `next`, in all.
  double wait_seconds() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoestring
