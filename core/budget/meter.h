// The stop-watch of one rank: every moment from the start of the process belongs to exactly one category, so the
// categories sum to the wall-clock time by construction. Scopes nest; the innermost counts.
//
//   Meter meter(system_clock());                      // in startup, counted from the start of the process
//   { Meter::Scope timing(meter, Category::compute); step(); }
//
// Used by the rank's main thread only.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

namespace shoestring {

enum class Category : std::uint8_t {
  startup,  ///< from the start of the process to the first step: reading, building, loading
  compute,
  recompute,              ///< forward work done again for the backward pass
  exposed_communication,  ///< waiting for messages with nothing to compute
  bubble,                 ///< waiting for another pipeline stage
  data_wait,              ///< waiting for a batch
  evaluation,
  checkpoint,
  idle,  ///< none of the others: between scopes
  lost,  ///< work that had to be done again: given up (Meter::write_off), or found by the reader of the ledger
};
inline constexpr int kCategories = 10;
std::string_view name(Category category);

/// Seconds by category: of one rank, or summed over ranks.
struct CategorySeconds {
  std::array<double, kCategories> seconds{};

  double& operator[](Category category) { return seconds[static_cast<std::size_t>(category)]; }
  double operator[](Category category) const { return seconds[static_cast<std::size_t>(category)]; }
  double total() const;
  CategorySeconds& operator+=(const CategorySeconds& other);
  CategorySeconds operator-(const CategorySeconds& other) const;
};

/// Time, so that tests can hold it in their hands.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual double monotonic_seconds() const = 0;  ///< never jumps
  virtual double unix_seconds() const = 0;       ///< may jump; for people and for ordering attempts
  virtual double process_start() const = 0;      ///< on the monotonic scale: when the operating system started us
};

const Clock& system_clock();

class Meter {
 public:
  explicit Meter(const Clock& clock);

  /// Counts `category` until the end of the scope, then whatever counted before.
  class Scope {
   public:
    Scope(Meter& meter, Category category) : meter_(meter), before_(meter.category()) { meter_.enter(category); }
    ~Scope() { meter_.enter(before_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Meter& meter_;
    Category before_;
  };

  /// From now on `category` counts. Outside all scopes: enter(idle) ends startup.
  void enter(Category category);
  Category category() const { return category_; }

  /// Told of each stretch of one category when it ends, in seconds since the start of the process; empty: nobody is.
  using Listener = std::function<void(Category, double begin_seconds, double end_seconds)>;
  void tell(Listener listener) { listener_ = std::move(listener); }

  /// Moves all that was counted since `before` was read to Category::lost: its work is given up.
  void write_off(const CategorySeconds& before);

  /// Seconds since the start of the process by category, up to now. Sums to elapsed_seconds().
  CategorySeconds read() const;
  double elapsed_seconds() const;

 private:
  const Clock& clock_;
  Category category_ = Category::startup;
  double since_ = 0;  // when category_ began to count
  CategorySeconds counted_;
  Listener listener_;
};

}  // namespace shoestring
