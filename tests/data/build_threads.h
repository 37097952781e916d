// Ranks of a build as threads of one process.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "data/build_ranks.h"

namespace shoestring::testing {

/// What the threads meet in.
class BuildMeeting {
 public:
  explicit BuildMeeting(int size) : size_(size), given_(static_cast<std::size_t>(size)) {}

  std::vector<std::int64_t> gather(int rank, std::span<const std::int64_t> values) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return failed_ || leaving_ == 0; });
    given_[static_cast<std::size_t>(rank)].assign(values.begin(), values.end());
    if (++come_ == size_) {
      leaving_ = size_;
      come_ = 0;
      changed_.notify_all();
    }
    changed_.wait(lock, [&] { return failed_ || leaving_ > 0; });
    if (failed_) throw std::runtime_error("another rank failed");
    std::vector<std::int64_t> all;
    for (const auto& part : given_) all.insert(all.end(), part.begin(), part.end());
    if (--leaving_ == 0) changed_.notify_all();
    return all;
  }
  void fail() {
    const std::scoped_lock lock(mutex_);
    failed_ = true;
    changed_.notify_all();
  }

 private:
  int size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::vector<std::int64_t>> given_;
  int come_ = 0;
  int leaving_ = 0;
  bool failed_ = false;
};

class ThreadRank final : public BuildRanks {
 public:
  ThreadRank(BuildMeeting& meeting, int rank, int size) : meeting_(meeting), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::vector<std::int64_t> gather(std::span<const std::int64_t> values) override {
    return meeting_.gather(rank_, values);
  }

 private:
  BuildMeeting& meeting_;
  int rank_;
  int size_;
};

/// Runs `body` on as many ranks; throws what the first that failed threw.
inline void on_ranks(int size, const std::function<void(BuildRanks&)>& body) {
  BuildMeeting meeting(size);
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadRank self(meeting, rank, size);
      try {
        body(self);
      } catch (...) {
        const std::scoped_lock lock(mutex);
        if (!first) first = std::current_exception();
        meeting.fail();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace shoestring::testing
