#include "data/prefetching_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr auto kTellEvery = std::chrono::milliseconds(100);
constexpr double kLateSeconds = 1;  // of a shard, before it is named

/// What one fetch came to: a batch, a fault, or (neither) the end.
struct Fetched {
  std::unique_ptr<Batch> batch;
  std::exception_ptr fault;
  double seconds = 0;
  bool last() const { return batch == nullptr; }
};

/// The ranges that come, a few of them ahead, so that the storage hears of them before they are read.
class RangesAhead {
 public:
  RangesAhead(const Loader& loader, std::function<std::optional<SampleRange>()> next_range)
      : loader_(loader), next_range_(std::move(next_range)) {}

  /// The next one; what `next_range` threw, in its turn.
  std::optional<SampleRange> next() {
    if (ahead_.empty()) pull(false);
    const Range range = std::move(ahead_.front());
    ahead_.pop_front();
    bytes_ -= range.bytes;
    if (range.fault) std::rethrow_exception(range.fault);
    return range.range;
  }
  /// Two for one that was taken, as long as there is room.
  void look_ahead() {
    for (int i = 0; i < 2 && !ended_ && room(); ++i) pull(true);
  }

 private:
  struct Range {
    std::optional<SampleRange> range;
    std::exception_ptr fault;
    std::int64_t bytes = 0;
  };
  bool room() const {
    return bytes_ < PrefetchingLoader::kReadAheadBytes && ahead_.size() < PrefetchingLoader::kReadAheadRanges;
  }
  void pull(bool asks) {
    Range& range = ahead_.emplace_back();
    try {
      range.range = next_range_();
      if (asks && range.range) range.bytes = loader_.read_ahead(*range.range);
    } catch (...) {
      range.fault = std::current_exception();
    }
    ended_ = range.fault != nullptr || !range.range;
    bytes_ += range.bytes;
  }

  const Loader& loader_;
  std::function<std::optional<SampleRange>()> next_range_;
  std::deque<Range> ahead_;
  std::int64_t bytes_ = 0;
  bool ended_ = false;
};

/// What the consumer waited for.
class Waits {
 public:
  explicit Waits(const PrefetchHooks& hooks) : hooks_(hooks) {}

  double seconds() const { return total_.wait_seconds; }
  void add(double waited, const Fetched& fetched) {
    total_.wait_seconds += waited;
    if (!fetched.batch) return;
    const double share = fetched.seconds > 0 ? std::min(1.0, waited / fetched.seconds) : 0;
    for (const ShardRead& read : fetched.batch->reads) {
      (read.copied ? total_.copy_bytes : total_.storage_bytes) += read.bytes;
      (read.copied ? total_.copy_seconds : total_.storage_seconds) += read.seconds;
      Late& late = late_[{read.shard, read.copied}];
      late.seconds += share * read.seconds;
      if (late.seconds >= late.told) tell(*read.shard, read.copied, late);
    }
  }
  DataReading reading() const {
    DataReading reading = total_;
    DataReading late;
    for (const auto& [shard, one] : late_) late.late.push_back({name(*shard.first, shard.second), one.seconds});
    reading.add(late, kLateShards);
    return reading;
  }

 private:
  struct Late {
    double seconds = 0;
    double told = kLateSeconds;  // when to tell next
  };
  static std::string name(const Shard& shard, bool copied) { return shard.info().path + (copied ? " (its copy)" : ""); }
  void tell(const Shard& shard, bool copied, Late& late) const {
    while (late.told <= late.seconds) late.told *= 2;
    if (!hooks_.late) return;
    const std::int64_t bytes = copied ? total_.copy_bytes : total_.storage_bytes;
    const double seconds = copied ? total_.copy_seconds : total_.storage_seconds;
    hooks_.late(fmt::format("waited {:.3g} s for {}; batches are read from there at {:.3g} MB/s", late.seconds,
                            name(shard, copied), static_cast<double>(bytes) * 1e-6 / seconds));
  }

  const PrefetchHooks& hooks_;
  DataReading total_;  // but for `late`
  std::map<std::pair<const Shard*, bool>, Late> late_;
};

}  // namespace

struct PrefetchingLoader::State {
  State(const Loader& the_loader, std::function<std::optional<SampleRange>()> ranges, int most, PrefetchHooks the_hooks)
      : loader(the_loader),
        storage(*the_loader.options().storage),
        hooks(std::move(the_hooks)),
        depth(static_cast<std::size_t>(most)),
        ahead(the_loader, std::move(ranges)),
        waits(hooks) {}

  const Loader& loader;
  const ShardStorage& storage;
  PrefetchHooks hooks;
  std::size_t depth;
  RangesAhead ahead;  ///< of the thread that fetches

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Fetched> ready;                  ///< at most `depth`
  std::vector<std::unique_ptr<Batch>> spare;  ///< buffers the consumer is done with
  bool stop = false;

  // The consumer's own.
  Fetched current;
  bool ended = false;
  Waits waits;
  std::thread thread;

  Fetched fetch(std::unique_ptr<Batch> buffer) {
    Fetched fetched;
    try {
      const std::optional<SampleRange> range = ahead.next();
      if (!range) return fetched;
      if (depth > 0) ahead.look_ahead();
      if (!buffer) buffer = std::make_unique<Batch>();
      const double begin = storage.seconds();
      loader.fetch(*range, *buffer);
      fetched.seconds = storage.seconds() - begin;
      fetched.batch = std::move(buffer);
    } catch (...) {
      fetched.fault = std::current_exception();
    }
    return fetched;
  }

  void serve() {
    while (true) {
      std::unique_ptr<Batch> buffer;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stop || ready.size() < depth; });
        if (stop) return;
        if (!spare.empty()) {
          buffer = std::move(spare.back());
          spare.pop_back();
        }
      }
      Fetched fetched = fetch(std::move(buffer));
      const bool last = fetched.last();
      {
        const std::scoped_lock lock(mutex);
        ready.push_back(std::move(fetched));
      }
      changed.notify_all();
      if (last) return;
    }
  }

  Fetched take(double begin) {
    if (depth == 0) return fetch(std::move(current.batch));
    std::unique_lock lock(mutex);
    if (current.batch) spare.push_back(std::move(current.batch));
    while (!changed.wait_for(lock, kTellEvery, [&] { return !ready.empty(); })) {
      if (!hooks.waits) continue;
      lock.unlock();
      hooks.waits(storage.seconds() - begin);
      lock.lock();
    }
    Fetched fetched = std::move(ready.front());
    ready.pop_front();
    lock.unlock();
    changed.notify_all();
    return fetched;
  }
};

PrefetchingLoader::PrefetchingLoader(const Loader& loader, std::function<std::optional<SampleRange>()> next_range,
                                     int depth, const ThreadMaker& make, PrefetchHooks hooks) {
  check(depth >= 0 && depth <= kMostPrefetch, "a prefetch depth of {} batches", depth);
  state_ = std::make_unique<State>(loader, std::move(next_range), depth, std::move(hooks));
  if (depth == 0) return;
  try {
    state_->thread = make([state = state_.get()] { state->serve(); });
  } catch (const std::system_error& error) {
    fail(ExitCode::io, "cannot make the thread that reads data ahead: {}; {}", error.code().message(), thread_limits());
  }
}

PrefetchingLoader::~PrefetchingLoader() {
  {
    const std::scoped_lock lock(state_->mutex);
    state_->stop = true;
  }
  state_->changed.notify_all();
  if (state_->thread.joinable()) state_->thread.join();
}

const Batch* PrefetchingLoader::next() {
  State& state = *state_;
  if (state.ended) return nullptr;
  const double begin = state.storage.seconds();
  state.current = state.take(begin);
  state.waits.add(state.storage.seconds() - begin, state.current);
  state.ended = state.current.last();
  if (state.current.fault) std::rethrow_exception(std::exchange(state.current.fault, nullptr));
  return state.current.batch.get();
}

double PrefetchingLoader::wait_seconds() const { return state_->waits.seconds(); }
DataReading PrefetchingLoader::reading() const { return state_->waits.reading(); }

}  // namespace shoestring
