// What the repetitions of one row come to.
#pragma once

#include <string>
#include <vector>

#include "tools/bench/bench_row.h"

namespace shoestring {

/// How fast the machine was while a repetition ran.
enum class Pace { full, slow };

/// Collects the ratios of one row. Its figures are those of the repetitions at full pace, or, where hardly one was, of
/// the others.
class Ratios {
 public:
  static constexpr int kFew = 3;  ///< fewer say nothing beside others
  void add(double ratio, double rate, Pace pace = Pace::full);
  void drop() { ++dropped_; }
  int kept() const { return static_cast<int>(full_.ratio.size()); }
  BenchRow row(std::string name, std::string over, double goal, std::string unit) const;

 private:
  struct Kind {
    std::vector<double> ratio;
    std::vector<double> rate;
  };
  Kind full_;
  Kind slow_;
  int dropped_ = 0;
};

}  // namespace shoestring
