// Not for users of communicators: how a loop that polls spends its time.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

namespace shoestring {

class PollPace {
 public:
  explicit PollPace(double limit_seconds) : limit_seconds_(limit_seconds) {}

  /// Between two looks; whether there is time for another. Most waits are short, and ranks often outnumber cores: looks
  /// again at once at first, then gives the core away, and sleeps once the wait is long against the sleep. How long it
  /// is the clock says: where others want the core, one turn can take as long as a thousand.
  bool next() {
    ++turns_;
    if (turns_ <= kTurnsAtOnce) return true;
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start_;
    if (waited < kLong) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      tells_ = since_told_ == 0;
      since_told_ = (since_told_ + 1) % kTurnsPerTelling;
    }
    return waited.count() < limit_seconds_;
  }

  /// Now and then in a wait that has become long, at its beginning first: time to tell of it.
  bool waits_long() const { return tells_; }

 private:
  static constexpr std::int64_t kTurnsAtOnce = 100;
  static constexpr std::int64_t kTurnsPerTelling = 64;
  static constexpr std::chrono::milliseconds kLong{2};

  double limit_seconds_;
  std::int64_t turns_ = 0;
  std::int64_t since_told_ = 0;
  bool tells_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// How long a wait has known that this process was asked to leave.
class AskedWait {
 public:
  /// `asked` may be empty; it must outlive this.
  AskedWait(const std::function<bool()>& asked, double patience_seconds) : asked_(asked), patience_(patience_seconds) {}

  /// Whether that is longer than the others are given.
  bool is_over() {
    if (!asked_ || !asked_()) return false;
    const Clock::time_point now = Clock::now();
    if (!heard_) since_ = now;
    heard_ = true;
    return std::chrono::duration<double>(now - since_).count() >= patience_;
  }

 private:
  using Clock = std::chrono::steady_clock;

  const std::function<bool()>& asked_;
  double patience_;
  bool heard_ = false;
  Clock::time_point since_;
};

}  // namespace shoestring
