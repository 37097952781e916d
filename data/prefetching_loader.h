// Batches made ready on a thread of their own, so that training does not wait for data; and what it waited for all the
// same.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "data/data_reading.h"
#include "data/loader.h"
#include "kernels/base/thread.h"

namespace shoestring {

inline constexpr int kMostPrefetch = 1024;  ///< batches ready ahead: past this they only take memory

/// Called on the consumer's thread, within `next`. Each may be empty.
struct PrefetchHooks {
  std::function<void(double seconds)> waits;          ///< ten times a second: how long it has waited this time
  std::function<void(const std::string&)> late = {};  ///< a shard has been waited for 1 s in all, 2 s, 4 s ...
};

/// Delivers loader.fetch(range) for the ranges that `next_range` names, in that order, whatever `depth`. Belongs to one
/// consumer thread; `loader` outlives it. The storage is asked for what lies further ahead, up to 64 MiB of it, in the
/// order in which it will be read.
class PrefetchingLoader {
 public:
  static constexpr std::int64_t kReadAheadBytes = std::int64_t{64} << 20;
  static constexpr std::size_t kReadAheadRanges = 64;

  /// `next_range` is called on the background thread, up to `depth` + kReadAheadRanges ranges ahead of the consumer;
  /// nothing ends the stream. depth 0 fetches on the consumer's own thread, and asks for nothing ahead; at most
  /// kMostPrefetch. Throws Error(io) naming the limits when the system allows no more threads.
  PrefetchingLoader(const Loader& loader, std::function<std::optional<SampleRange>()> next_range, int depth,
                    const ThreadMaker& make = make_thread, PrefetchHooks hooks = {});
  ~PrefetchingLoader();
  PrefetchingLoader(const PrefetchingLoader&) = delete;
  PrefetchingLoader& operator=(const PrefetchingLoader&) = delete;

  /// The next batch, valid until the next call; nullptr at the end. A failed fetch is thrown here, in its turn.
  const Batch* next();

  /// Seconds the consumer has spent waiting in `next`, in all.
  double wait_seconds() const;
  /// The same by shard, with what was read. A wait is shared out over the reads of the batch that was waited for, by
  /// how long they took. Without what was staged.
  DataReading reading() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoestring
