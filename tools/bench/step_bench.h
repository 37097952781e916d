// Suite `step`: whole training steps of a GPT-2-124M-sized model against llm.c and PyTorch, and memory against the
// accounting.
#pragma once

#include "tools/bench/bench_suites.h"

namespace shoestring {

/// Two threads whatever `workers` has. Rivals come with `effort.rivals`; their steps and ours take turns.
void bench_step(Workers& workers, const BenchEffort& effort, const BenchReport& report);

}  // namespace shoestring
