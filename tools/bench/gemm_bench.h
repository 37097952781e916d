// Matrix products: over the peak of their unit, over oneDNN, grouped over dense, two threads over one.
#pragma once

#include "tools/bench/bench_suites.h"

namespace shoestring {

/// Rows for 2048 cubed and the demo model's shapes. BF16 and FP8 outputs are bf16, weights are packed ahead as they are
/// once an optimizer step; FP8 times contain the quantisation and packing of the activations.
void bench_gemm(Workers& workers, const BenchEffort& effort, const BenchReport& report);

}  // namespace shoestring
