// Corpora to shards: how fast text is encoded, beside the library that the tokenizer comes from, and what share of that
// a whole build keeps.
#pragma once

#include "tools/bench/bench_suites.h"

namespace shoestring {

/// Encoding, the parts of a build and the whole of it, over C headers under /usr/include. Writes about 100 MB to the
/// temporary folder and removes them.
void bench_data(Workers& workers, const BenchEffort& effort, const BenchReport& report);

}  // namespace shoestring
