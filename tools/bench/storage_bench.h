// What training waits for when shards lie on storage that is slow.
#pragma once

#include "tools/bench/bench_suites.h"

namespace shoestring {

/// Batches from a storage that takes 10 ms to open a file and gives 50 MB/s to all who read, with and without copies on
/// a disk near by: the share of a run's wall-clock that it waited. Writes 200 MB to the temporary folder and removes
/// them. `effort` does not count: the rows are as long as the copying needs.
void bench_storage(Workers& workers, const BenchEffort& effort, const BenchReport& report);

}  // namespace shoestring
