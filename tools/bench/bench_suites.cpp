#include "tools/bench/bench_suites.h"

#include <array>

#include "tools/bench/data_bench.h"
#include "tools/bench/gemm_bench.h"
#include "tools/bench/loader_bench.h"
#include "tools/bench/quantize_bench.h"
#include "tools/bench/rows_bench.h"
#include "tools/bench/step_bench.h"
#include "tools/bench/storage_bench.h"

namespace shoestring {
namespace {

void calibrations(Workers& workers, const BenchEffort&, const BenchReport& report) {
  const auto peak = [&](const char* name, double flops) {
    if (flops == 0) return report(not_here(name, "itself", "it has no such unit"));
    report({.name = name,
            .over = "itself",
            .median = 1,
            .p10 = 1,
            .p90 = 1,
            .goal = 0,
            .absolute = flops / 1e12,
            .absolute_unit = "TFLOP/s",
            .kept = 1,
            .dropped = 0});
  };
  peak("FP32 FMA on registers", fma_peak(workers));
  peak("AMX BF16 on loaded tiles", amx_peak(workers));
}

constexpr std::array kSuites = {
    BenchSuite{"calibration", "what the other ratios stand on", calibrations},
    BenchSuite{"data", "text to shards", bench_data},
    BenchSuite{"gemm", "matrix products", bench_gemm},
    BenchSuite{"loader", "shards to batches", bench_loader},
    BenchSuite{"quantize", "casts to FP8, both in the cache and from memory", bench_quantize},
    BenchSuite{"rows", "each op's rows beside each other", bench_rows},
    BenchSuite{"step", "whole training steps and their memory", bench_step},
    BenchSuite{"storage", "batches from slow storage", bench_storage},
};

}  // namespace

std::span<const BenchSuite> bench_suites() { return kSuites; }

}  // namespace shoestring
