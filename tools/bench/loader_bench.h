// The data path: how fast samples come from shards, beside the plainest way to fetch the same bytes.
#pragma once

#include "tools/bench/bench_suites.h"

namespace shoestring {

/// Three rows. Writes about 90 MiB of shards to the temporary folder and removes them. Runs on one thread.
void bench_loader(Workers& workers, const BenchEffort& effort, const BenchReport& report);

}  // namespace shoestring
