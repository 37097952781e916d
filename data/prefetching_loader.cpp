#include "data/prefetching_loader.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/base/check.h"

namespace shoestring {

struct PrefetchingLoader::State {
  /// What one fetch came to: a batch, a fault, or (neither) the end.
  struct Result {
    std::unique_ptr<Batch> batch;
    std::exception_ptr fault;
    bool last() const { return batch == nullptr; }
  };

  State(const Loader& the_loader, std::function<std::optional<SampleRange>()> ranges, int most)
      : loader(the_loader), next_range(std::move(ranges)), depth(static_cast<std::size_t>(most)) {}

  const Loader& loader;
  std::function<std::optional<SampleRange>()> next_range;
  std::size_t depth;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Result> ready;                   ///< at most `depth`
  std::vector<std::unique_ptr<Batch>> spare;  ///< buffers the consumer is done with
  bool stop = false;

  // The consumer's own.
  Result current;
  bool ended = false;
  double wait_seconds = 0;
  std::thread thread;

  Result fetch(std::unique_ptr<Batch> buffer) {
    Result result;
    try {
      const std::optional<SampleRange> range = next_range();
      if (!range) return result;
      if (!buffer) buffer = std::make_unique<Batch>();
      loader.fetch(*range, *buffer);
      result.batch = std::move(buffer);
    } catch (...) {
      result.fault = std::current_exception();
    }
    return result;
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
      Result result = fetch(std::move(buffer));
      const bool last = result.last();
      {
        const std::scoped_lock lock(mutex);
        ready.push_back(std::move(result));
      }
      changed.notify_all();
      if (last) return;
    }
  }

  Result take() {
    if (depth == 0) return fetch(std::move(current.batch));
    std::unique_lock lock(mutex);
    if (current.batch) spare.push_back(std::move(current.batch));
    changed.wait(lock, [&] { return !ready.empty(); });
    Result result = std::move(ready.front());
    ready.pop_front();
    lock.unlock();
    changed.notify_all();
    return result;
  }
};

PrefetchingLoader::PrefetchingLoader(const Loader& loader, std::function<std::optional<SampleRange>()> next_range,
                                     int depth, const ThreadMaker& make) {
  check(depth >= 0 && depth <= kMostPrefetch, "a prefetch depth of {} batches", depth);
  state_ = std::make_unique<State>(loader, std::move(next_range), depth);
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
  const auto begin = std::chrono::steady_clock::now();
  state.current = state.take();
  state.wait_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  state.ended = state.current.last();
  if (state.current.fault) std::rethrow_exception(std::exchange(state.current.fault, nullptr));
  return state.current.batch.get();
}

double PrefetchingLoader::wait_seconds() const { return state_->wait_seconds; }

}  // namespace shoestring
