// Quantisation: elements a second, in the L2 cache and from memory.
#pragma once

#include "tools/bench/bench_suites.h"

namespace shoestring {

/// Rows for f32 and bf16 to E4M3. The ratio is over 1e9 elements a second: the goals are stated so, for two threads.
void bench_quantize(Workers& workers, const BenchEffort& effort, const BenchReport& report);

}  // namespace shoestring
