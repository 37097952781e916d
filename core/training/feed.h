// Where the micro-batches of a pass come from: the loader of a phase; later rollouts, and teachers that add columns.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "core/model/micro_batch.h"
#include "core/model/objective.h"
#include "core/training/batch_plan.h"
#include "data/prefetching_loader.h"

namespace shoestring {

class Feed {
 public:
  virtual ~Feed() = default;
  /// The micro-batch of these samples, valid until the next call. A rank asks in RankOrder, each range once.
  virtual BatchView next(SampleRange samples) = 0;
};

/// What a rank reads its shards from, and does when that is slow or fails. Called by the thread that trains; each may
/// be empty.
struct StorageHooks {
  std::function<void(const std::string&)> say;      ///< a line: which shard is late, what is waited for
  std::function<void()> waits;                      ///< a wait has become long: others are to be patient with this rank
  std::function<void()> goes_on;                    ///< it is over
  const ShardStorage* storage = &system_storage();  ///< that shards lie on
  std::function<double()> left{};                   ///< seconds that may be waited for it yet; any thread asks
};

/// What other threads have to say, until the one that trains says it. Thread-safe.
class StorageNews {
 public:
  void add(const std::string& line) {
    const std::scoped_lock lock(mutex_);
    lines_.push_back(line);
  }
  std::vector<std::string> take() {
    const std::scoped_lock lock(mutex_);
    return std::exchange(lines_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

/// One rank's share of a phase, from its shards: fetched ahead by a thread of its own.
class LoaderFeed final : public Feed {
 public:
  /// From the global batch on that begins after `samples` samples. `loader` and `news`, to which its patience tells
  /// what it waits for, must outlive it.
  LoaderFeed(const Loader& loader, const BatchPlan& plan, std::int64_t samples, int rank, int prefetch,
             StorageHooks hooks = {}, StorageNews* news = nullptr);
  /// A fetch that waits for its storage ends.
  ~LoaderFeed() override;
  BatchView next(SampleRange samples) override;
  DataReading reading() const { return batches_.reading(); }

 private:
  void wait(double seconds);
  void tell();

  const Loader& loader_;
  StorageHooks hooks_;
  StorageNews* news_;
  bool waits_long_ = false;
  PrefetchingLoader batches_;
  ColumnView weights_{kWeightColumn, {}};  ///< of the last batch, where it has any
};

/// What the model reads of a loader's batch.
BatchView view_of(const Batch& batch);

}  // namespace shoestring
