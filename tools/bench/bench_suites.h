// The suites of `shoestring bench`, in one visible list.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "kernels/base/workers.h"
#include "tools/bench/bench_row.h"
#include "tools/bench/calibration.h"

namespace shoestring {

using BenchReport = std::function<void(const BenchRow&)>;

struct BenchSuite {
  std::string_view name;
  std::string_view meaning;
  void (*run)(Workers& workers, const BenchEffort& effort, const BenchReport& report);
};

std::span<const BenchSuite> bench_suites();

}  // namespace shoestring
