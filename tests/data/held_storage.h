// A storage in a time of its own, which passes only in its calls: slow, late and failing as a test says.
#pragma once

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "data/storage.h"

namespace shoestring::testing {

class HeldStorage : public ShardStorage {
 public:
  double open_seconds = 0;
  double bytes_per_second = std::numeric_limits<double>::infinity();
  bool lies_far = false;                   ///< remote
  int error = EIO;                         ///< of calls that fail
  std::function<void()> on_pause;          ///< by the thread that waits
  mutable std::atomic<int> good{1 << 30};  ///< calls before they fail
  mutable std::atomic<int> bad{0};         ///< that fail then
  mutable std::atomic<int> opens{0}, reads{0}, pauses{0};

  int open(const std::string& path) const override {
    ++opens;
    pass(open_seconds);
    return fails() ? -1 : ShardStorage::open(path);
  }
  std::int64_t read(int file, std::int64_t offset, void* to, std::int64_t bytes) const override {
    ++reads;
    pass(static_cast<double>(bytes) / bytes_per_second);
    return fails() ? -1 : ShardStorage::read(file, offset, to, bytes);
  }
  void will_need(int, std::int64_t offset, std::int64_t bytes) const override {
    const std::scoped_lock lock(mutex_);
    asked_.emplace_back(offset, bytes);
  }
  bool remote(int) const override { return lies_far; }
  double seconds() const override { return static_cast<double>(nanoseconds_) * 1e-9; }
  void pause(double seconds) const override {
    ++pauses;
    pass(seconds);
    if (on_pause) on_pause();
  }

  using Asked = std::vector<std::pair<std::int64_t, std::int64_t>>;  ///< offset, bytes
  Asked asked() const {
    const std::scoped_lock lock(mutex_);
    return asked_;
  }
  void pass(double seconds) const { nanoseconds_ += std::llround(seconds * 1e9); }

 private:
  bool fails() const {
    if (good-- > 0) return false;
    if (bad-- <= 0) return false;
    errno = error;
    return true;
  }
  mutable std::atomic<std::int64_t> nanoseconds_{0};
  mutable std::mutex mutex_;
  mutable Asked asked_;
};

}  // namespace shoestring::testing
