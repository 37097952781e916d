// Reading a ledger: what every attempt did, what it is charged, and what of it was lost.
//
// An attempt that wrote no end died (or still runs). It is charged until its last sign of life (life_sign.h); without
// one, until its last line plus half of the usual gap between its lines: the expected moment of death. Work after the
// checkpoint that the run went on from is lost: it is charged, moved to Category::lost, and done again.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/budget/ledger.h"
#include "core/budget/life_sign.h"

namespace shoestring {

/// Share of an attempt that belongs to one phase: all its GPU-seconds, but only the steps and tokens that were kept.
struct PhaseSpan {
  std::string phase;
  double gpu_seconds = 0;
  std::int64_t tokens = 0;
  std::int64_t steps = 0;
};

enum class AttemptState : std::uint8_t { ended, running, died };

struct AttemptHistory {
  int attempt = 0;
  AttemptStart start;
  AttemptState state = AttemptState::died;
  bool begun = false;  ///< it came to know where it goes on from: no trial of speed, nor dead while loading
  std::string reason;  ///< of the end line; "died" or "running" without one
  std::string text;    ///< the error's text
  int exit_code = 0;
  double begin_unix_seconds = 0;
  std::vector<AttemptProgress> points;  ///< every progress written, in order; the last is `last()`
  double tail_gpu_seconds = 0;          ///< estimated, from the last line to death
  CategorySeconds charged;              ///< all of it, the tail included, lost work moved to Category::lost
  std::int64_t kept_step = 0;           ///< last step of it that the run still has
  std::int64_t kept_tokens = 0;         ///< tokens up to there, of the run
  std::vector<CheckpointCommit> checkpoints;
  std::vector<EvaluationResult> evaluations;
  std::vector<SuiteResult> suites;
  std::vector<PhaseSpan> phases;
  std::vector<double> max_violations;   ///< of each mixture's experts, when last written
  std::optional<PipelineUse> pipeline;  ///< where there was one, and time to look
  std::optional<DataReading> data;      ///< how training data came, when last written
  std::vector<std::string> notes;

  /// The furthest point written; all zero before the first.
  AttemptProgress last() const { return points.empty() ? AttemptProgress{} : points.back(); }
};

inline constexpr int kMostAttempt = 1'000'000'000;  ///< a line with a higher number is damage

struct LedgerHistory {
  std::vector<AttemptHistory> attempts;    ///< in order
  std::vector<HorizonDecision> decisions;  ///< that hold for the steps the run still has, by step
  int damaged_lines = 0;                   ///< complete lines that could not be read
  bool torn = false;                       ///< the last line was cut off: it is no whole value of JSON

  /// Whether an attempt brought the run to its end and none has begun since.
  bool done() const;
  CategorySeconds charged() const;  ///< over all attempts, GPU-seconds
  double charged_gpu_seconds() const { return charged().total(); }
  /// Over all attempts, each at its own price and power.
  Spent spent(const std::optional<Price>& price, double watts) const;
};

/// The attempt that says how a run stands: the last, those that only measured aside where there are others. There must
/// be one.
const AttemptHistory& latest_of(const std::vector<AttemptHistory>& attempts);

/// What an attempt cost at the price and the power per device that it was run at; at `price` and `watts` where it
/// stated none.
Spent spent_by(const AttemptHistory& attempt, const std::optional<Price>& price, double watts);

/// Reads `run_directory`/ledger.jsonl; an absent file is an empty history. Never throws on damage, only on I/O. For
/// readers beside a run; the process that holds the Ledger asks Ledger::history() what came before it.
LedgerHistory read_ledger(const std::filesystem::path& run_directory);

/// The same from text. `written`: some process has the ledger open for writing now. `sign`: what stands in the life
/// sign beside it.
LedgerHistory read_ledger_text(std::string_view text, bool written, const std::optional<LastSign>& sign = {});

/// The decisions to replay when going on after `step` steps: those made at or before it.
std::vector<HorizonDecision> decisions_until(const LedgerHistory& history, std::int64_t step);

}  // namespace shoestring
