// Measuring on a machine whose speed changes under the measurement.
//
// A repetition is timed between two short calibrations of the unit that it loads, or beside a rival in the same
// process, and only ratios are judged. Repetitions are dropped when the calibrations around them differ by more than a
// tenth, or when a thread was taken off its processor meanwhile.
//
// A core on a shared machine has two paces, for milliseconds to minutes, and most calibrations do not show it: see
// `pace`. Repetitions at the slow one are kept apart (ratios.h).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/base/workers.h"
#include "tools/bench/bench_row.h"
#include "tools/bench/ratios.h"

namespace shoestring {

double now_seconds();

/// FLOP/s of AMX BF16 products of loaded tiles, without further loads, all workers together, about 1 ms; 0 without AMX.
double amx_peak(Workers& workers);

/// FLOP/s of FP32 FMA on the widest registers there are (AVX-512, AVX2), all workers together, about 2 ms; 0 without.
double fma_peak(Workers& workers);

/// The slower of the workers' paces at the moment, about 1 ms. At the slow one, tile products take 2.3 times as long on
/// operands that were loaded, 4 times with the loads they need, and no longer than ever on tiles that were only
/// cleared; FP32 products with loads lose a quarter, FMA on registers nothing. As if another tenant's thread used the
/// tile unit and the load ports of the same core; no guest can see it. Full without AMX: nothing tells.
Pace pace(Workers& workers);

/// Pace during a repetition: full if it was so right before and right after.
class PaceWatch {
 public:
  explicit PaceWatch(Workers& workers) : workers_(workers), before_(shoestring::pace(workers)) {}
  Pace pace() const { return before_ == Pace::full ? shoestring::pace(workers_) : Pace::slow; }

 private:
  Workers& workers_;
  Pace before_;
};

/// Involuntary context switches of this process so far.
long preemptions();

/// Rivals that the user brings; empty: rows over them are left unmeasured.
struct BenchRivals {
  std::string llm_c;              ///< folder of a checkout of llm.c
  std::string pytorch;            ///< a Python interpreter that has torch
  bool pytorch_compiled = false;  ///< through torch.compile
};

/// How long a bench may take, and whom it meets.
struct BenchEffort {
  int repetitions = 15;     ///< that count, for each row
  double most_seconds = 4;  ///< for each row, even if fewer count; four times as long where hardly one does
  BenchRivals rivals;
  /// Is told between repetitions how much of the row's time has gone, and its most; may be empty.
  std::function<void(double seconds, double most_seconds)> progress{};
};

/// Whether a row that began at `start` needs another repetition.
bool wants_more(const Ratios& ratios, double start, const BenchEffort& effort);

/// `flops` of `body` over the calibration around it.
BenchRow bench_over_peak(std::string name, std::string over, double goal, double flops, Workers& workers,
                         double (*peak)(Workers&), const std::function<void()>& body, const BenchEffort& effort);

/// Seconds of `rival` over seconds of `body`, one after the other, each timed as the mean of as many calls as fill a
/// millisecond; `work` per call over the body's seconds is the absolute figure.
BenchRow bench_over_rival(std::string name, std::string over, double goal, double work, std::string unit,
                          Workers& workers, const std::function<void()>& body, const std::function<void()>& rival,
                          const BenchEffort& effort);

}  // namespace shoestring
