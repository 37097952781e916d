// What a run tells of itself as it goes: lines on its terminal, and what its ledger notes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "core/budget/ledger.h"
#include "core/training/decision.h"
#include "core/training/guard.h"
#include "core/training/metrics.h"

namespace shoestring {

struct Notice {
  const char* about;  ///< what the ledger notes it under
  std::string text;
};

/// "tiny_moe: attempt 2 on 4 ranks, going on from step 120".
std::string attempt_text(const std::string& run, int attempt, int ranks, bool fresh, std::int64_t step);
/// Of a step that stood out, and what was done about it.
Notice judgement_notice(std::int64_t step, const Judgement& judgement);
/// "kernels: gemm=amx ...", from the row of each op.
std::string variants_text(const std::map<std::string, std::string>& variants);
/// Of `all` held-out sequences, or requests of suites, only `done` had room.
std::string cut_evaluation_text(std::int64_t step, std::int64_t done, std::int64_t all);
std::string cut_suites_text(std::int64_t step, std::int64_t done, std::int64_t all);
std::string held_out_text(const EvaluationMetrics& metrics, double took_seconds);
std::string score_text(std::int64_t step, const SuiteScore& score);
/// `folder`: the checkpoint that an attempt ended with.
std::string end_text(const std::string& run, Stop stop, std::int64_t step, const std::filesystem::path& folder);

}  // namespace shoestring
