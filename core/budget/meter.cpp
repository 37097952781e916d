#include "core/budget/meter.h"

#include <time.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <string>
#include <system_error>

namespace shoestring {
namespace {

constexpr std::string_view kNames[] = {"startup", "compute",   "recompute",  "exposed_communication",
                                       "bubble",  "data_wait", "evaluation", "checkpoint",
                                       "idle",    "lost"};
static_assert(std::size(kNames) == kCategories);

double seconds_of(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Seconds since the operating system started this process; 0 if it does not tell.
double process_age() {
  std::FILE* file = std::fopen("/proc/self/stat", "re");
  if (file == nullptr) return 0;
  char text[4096];
  const std::size_t length = std::fread(text, 1, sizeof text - 1, file);
  std::fclose(file);
  text[length] = '\0';
  const char* field = std::strrchr(text, ')');  // the program's name may hold anything but ends here
  if (field == nullptr) return 0;
  for (int number = 2; number < 22 && field != nullptr; ++number) field = std::strchr(field + 1, ' ');
  unsigned long long ticks = 0;  // field 22: start after boot, in clock ticks
  if (field == nullptr || std::from_chars(field + 1, text + length, ticks).ec != std::errc()) return 0;
  const double age =
      seconds_of(CLOCK_BOOTTIME) - static_cast<double>(ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  return age > 0 ? age : 0;
}

class SystemClock : public Clock {
 public:
  SystemClock() : start_(seconds_of(CLOCK_MONOTONIC) - process_age()) {}
  double monotonic_seconds() const override { return seconds_of(CLOCK_MONOTONIC); }
  double unix_seconds() const override { return seconds_of(CLOCK_REALTIME); }
  double process_start() const override { return start_; }

 private:
  double start_;
};

}  // namespace

std::string_view name(Category category) { return kNames[static_cast<std::size_t>(category)]; }

double CategorySeconds::total() const {
  double sum = 0;
  for (const double part : seconds) sum += part;
  return sum;
}

CategorySeconds& CategorySeconds::operator+=(const CategorySeconds& other) {
  for (std::size_t i = 0; i < seconds.size(); ++i) seconds[i] += other.seconds[i];
  return *this;
}

CategorySeconds CategorySeconds::operator-(const CategorySeconds& other) const {
  CategorySeconds result = *this;
  for (std::size_t i = 0; i < seconds.size(); ++i) result.seconds[i] -= other.seconds[i];
  return result;
}

const Clock& system_clock() {
  static const SystemClock clock;
  return clock;
}

Meter::Meter(const Clock& clock) : clock_(clock), since_(clock.process_start()) {}

void Meter::enter(Category category) {
  const double now = clock_.monotonic_seconds();
  counted_[category_] += now - since_;
  if (listener_) listener_(category_, since_ - clock_.process_start(), now - clock_.process_start());
  since_ = now;
  category_ = category;
}

void Meter::write_off(const CategorySeconds& before) {
  enter(category_);
  const double spent = counted_.total() - before.total();
  counted_ = before;
  counted_[Category::lost] += spent;
}

CategorySeconds Meter::read() const {
  CategorySeconds result = counted_;
  result[category_] += clock_.monotonic_seconds() - since_;
  return result;
}

double Meter::elapsed_seconds() const { return clock_.monotonic_seconds() - clock_.process_start(); }

}  // namespace shoestring
