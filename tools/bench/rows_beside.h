// Timing the rows of one table on the same arguments.
#pragma once

#include <fmt/core.h>

#include <span>
#include <string>
#include <string_view>

#include "kernels/base/device.h"
#include "kernels/base/variant.h"
#include "kernels/variant_list.h"
#include "tools/bench/bench_suites.h"

namespace shoestring {

class RowsBeside {
 public:
  RowsBeside(Workers& workers, const BenchEffort& effort, const BenchReport& report)
      : stream(workers), workers_(workers), effort_(effort), report_(report) {}
  RowsBeside(const RowsBeside&) = delete;
  RowsBeside& operator=(const RowsBeside&) = delete;

  Stream stream;

  /// Every row of a CPU over the one behind it, last ones first. `what` is the op and its sizes, `work` what a call
  /// does in units of 1e9: "Gelem/s", "GFLOP/s".
  template <class Args>
  void time(const std::string& what, double work, const char* unit, std::span<const Variant<Args>> rows,
            const Args& args) {
    const Variant<Args>* behind = nullptr;
    for (auto row = rows.rbegin(); row != rows.rend(); ++row) {
      const std::string_view lacking = machine_lacks(row->name);
      if (lacking == "a CUDA device") continue;
      const std::string name = fmt::format("{}: {}", what, row->name);
      const std::string over(behind == nullptr ? "" : behind->name);
      if (!lacking.empty()) {
        report_(not_here(name, over, fmt::format("no {}", lacking)));
        continue;
      }
      if (const std::string reason = row->refuses(args); !reason.empty()) {
        report_(not_here(name, over, reason));
        continue;
      }
      if (behind != nullptr) {
        const bool by_hand = row->name == "avx512" || row->name == "amx";
        report_(bench_over_rival(
            name, over, by_hand ? 1.05 : 0, work * 1e-9, unit, workers_, [&] { row->run(args); },
            [&] { behind->run(args); }, effort_));
      }
      behind = &*row;
    }
  }

 private:
  Workers& workers_;
  const BenchEffort& effort_;
  const BenchReport& report_;
};

}  // namespace shoestring
