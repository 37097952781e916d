// Measuring on a machine whose speed changes under the measurement.
//
// A repetition is timed between two short calibrations of the unit that it loads, or beside a rival in the same
// process, and only ratios are judged. Repetitions are dropped when the calibrations around them differ by more than a
// tenth, when tile loads run far below the tile products of the same moment, or when a thread was taken off its
// processor meanwhile.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/base/workers.h"
#include "tools/bench/bench_row.h"

namespace shoestring {

double now_seconds();

/// FLOP/s of AMX BF16 tile products on registers, all workers together, about 2 ms; 0 without AMX.
double amx_peak(Workers& workers);

/// The same with tile loads from L1 between the products: tells the times when only loads are slow.
double amx_loaded(Workers& workers);

/// FLOP/s of AVX-512 FP32 FMA on registers, all workers together, about 2 ms; 0 without AVX-512.
double fma_peak(Workers& workers);

/// Involuntary context switches of this process so far.
long preemptions();

/// Collects the ratios of one row.
class Ratios {
 public:
  void add(double ratio, double rate) {
    ratios_.push_back(ratio);
    rates_.push_back(rate);
  }
  void drop() { ++dropped_; }
  int kept() const { return static_cast<int>(ratios_.size()); }
  BenchRow row(std::string name, std::string over, double goal, std::string unit) const;

 private:
  std::vector<double> ratios_;
  std::vector<double> rates_;
  int dropped_ = 0;
};

/// Rivals that the user brings; empty: rows over them are left unmeasured.
struct BenchRivals {
  std::string llm_c;              ///< folder of a checkout of llm.c
  std::string pytorch;            ///< a Python interpreter that has torch
  bool pytorch_compiled = false;  ///< through torch.compile
};

/// How long a bench may take, and whom it meets.
struct BenchEffort {
  int repetitions = 15;     ///< that count, for each row
  double most_seconds = 4;  ///< for each row, even if fewer count
  BenchRivals rivals;
};

/// `flops` of `body` over the calibration around it.
BenchRow bench_over_peak(std::string name, std::string over, double goal, double flops, Workers& workers,
                         double (*peak)(Workers&), const std::function<void()>& body, const BenchEffort& effort);

/// Seconds of `rival` over seconds of `body`, one after the other, each timed as the mean of as many calls as fill a
/// millisecond; `work` per call over the body's seconds is the absolute figure.
BenchRow bench_over_rival(std::string name, std::string over, double goal, double work, std::string unit,
                          const std::function<void()>& body, const std::function<void()>& rival,
                          const BenchEffort& effort);

}  // namespace shoestring
