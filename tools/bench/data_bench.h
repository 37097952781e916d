// Corpora to shards: how fast text is encoded, beside the library that the tokenizer comes from, and what share of that
// a whole build keeps.
#pragma once

#include "tools/bench/bench_suites.h"

namespace shoestring {

/// Two rows, over C headers under /usr/include. Writes about 100 MB to the temporary folder and removes them.
void bench_data(Workers& workers, const BenchEffort& effort, const BenchReport& report);

}  // namespace shoestring
