// Not for users of communicators: how a loop that polls spends its time.
#pragma once

#include <chrono>
#include <cstdint>
#include <thread>

namespace shoestring {

class Pace {
 public:
  explicit Pace(double limit_seconds) : limit_seconds_(limit_seconds) {}

  /// Between two looks; whether there is time for another. Most waits are short, and ranks often outnumber cores: looks
  /// again at once at first, then gives the core away, and sleeps once the wait is long against the sleep.
  bool next() {
    ++turns_;
    if (turns_ > 2000) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    } else if (turns_ > 100) {
      std::this_thread::yield();
    }
    if (turns_ % kTurnsPerLook != 0) return true;
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count() < limit_seconds_;
  }

  /// Now and then in a wait that has become long: time to tell of it.
  bool waits_long() const { return turns_ > 2000 && turns_ % kTurnsPerLook == 0; }

 private:
  static constexpr std::int64_t kTurnsPerLook = 64;

  double limit_seconds_;
  std::int64_t turns_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace shoestring
