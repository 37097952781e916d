// Each op's rows beside each other: whether a row written by hand for one instruction set is worth its code.
#pragma once

#include "tools/bench/bench_suites.h"

namespace shoestring {

/// A hand-written row (avx512, amx) stays where it is more than 5% faster than the next one in its op's table that runs
/// here: that is its goal. A vector row beside the reference is told, not judged. Products are in the suite gemm.
void bench_rows(Workers& workers, const BenchEffort& effort, const BenchReport& report);

}  // namespace shoestring
