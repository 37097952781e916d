// ledger.jsonl: what a run cost, over all its attempts. Append-only, one write per line, fsynced; it survives kill -9,
// a resume on another number of ranks, and a torn last line, and it never lives only inside a checkpoint.
//
// One rank writes it. All seconds are cumulative since the start of the attempt and summed over ranks (GPU-seconds), so
// that a lost line loses nothing. Reading it is in ledger_history.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/budget/hardware.h"
#include "core/budget/horizon.h"
#include "core/budget/meter.h"
#include "core/budget/price.h"
#include "data/data_reading.h"

namespace shoestring {

class Json;
struct LedgerHistory;

inline constexpr std::string_view kLedgerSchema = "shoestring.ledger/1";
inline constexpr std::string_view kLedgerFile = "ledger.jsonl";
/// Reason of the end of an attempt that trained nothing: a trial of speed for a plan.
inline constexpr std::string_view kMeasuredOnly = "measured";

/// First line of an attempt: all that a report needs to know about the run.
struct AttemptStart {
  std::string run;      ///< run.name
  std::string project;  ///< run.project
  int ranks = 1;
  double head_start_gpu_seconds = 0;  ///< HeadStart::gpu_seconds of the ranks, before the one that writes
  std::string host;
  std::int64_t pid = 0;
  std::string recipe_hash;
  std::string build;                            ///< version and build type
  std::map<std::string, std::string> variants;  ///< op -> chosen variant
  std::int64_t from_step = 0;                   ///< steps done by the checkpoint it starts from; -1: not known yet
  std::int64_t from_tokens = 0;
  Cap cap;
  std::optional<Price> price;
  Hardware hardware;
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;
  double flops_per_token = 0;
};

/// How far the attempt is. Cumulative.
struct AttemptProgress {
  std::int64_t step = 0;            ///< steps done, of the run
  std::int64_t tokens = 0;          ///< of text that were read in training, of the run
  std::int64_t learned_tokens = 0;  ///< of those; 0: a ledger from before they were counted apart
  std::string phase;
  CategorySeconds seconds;   ///< since the start of the attempt, summed over ranks
  PerFormat flops;           ///< done in this attempt, summed over ranks
  double loss = 0;           ///< of the last step; 0: none yet; not finite: it was not
  std::int64_t clipped = 0;  ///< steps, of the run, whose gradient was clipped
  std::int64_t skipped = 0;  ///< steps, of the run, that left the weights as they were
  std::int64_t returns = 0;  ///< times the run went back to a checkpoint
};

struct CheckpointCommit {
  std::int64_t step = 0;
  std::int64_t tokens = 0;
  std::string name;
  std::int64_t bytes = 0;
  double took_seconds = 0;
};

struct EvaluationResult {
  std::int64_t step = 0;
  std::int64_t tokens = 0;   ///< held-out tokens looked at
  double loss = 0;           ///< nats per token; may be not finite, as the next
  double bits_per_byte = 0;  ///< 0: none, of conversations only some tokens are predicted
  double took_seconds = 0;
  std::int64_t sequences = 0;      ///< held-out sequences looked at, spread evenly over all
  std::int64_t all_sequences = 0;  ///< that the recipe asks for; 0: a ledger from before they were counted
};

/// One number that the answers to a suite come to, by lm-evaluation-harness's names.
struct SuiteScore {
  std::string task;
  std::string metric;
  std::int64_t requests = 0;  ///< answered, of the task
  double value = 0;
  double error = -1;  ///< its standard error; negative: nobody knows one
};

/// What was asked at the end of a phase.
struct SuiteResult {
  std::int64_t step = 0;
  std::string phase;
  std::int64_t requests = 0;      ///< answered, spread evenly over all
  std::int64_t all_requests = 0;  ///< that the recipe asks
  double took_seconds = 0;
  std::vector<SuiteScore> scores;
};

/// How a pipeline was used in a few steps of an attempt. A bubble is the share of rank-seconds, from the first action
/// of a reduction group to its last on any rank, in which ranks compute nothing.
struct PipelineUse {
  std::string schedule;
  int ranks = 0;
  int stages = 0;
  int microbatches = 0;    ///< of a reduction group
  std::int64_t steps = 0;  ///< that were looked at
  double bubble = 0;
  double simulated_bubble = 0;  ///< of the schedule's list, each stage at its measured mean times, messages free
  double imbalance = 0;         ///< of the slowest stage: its time over the mean, minus 1
  std::vector<double> stage_seconds = {};  ///< of each stage: forward and backward of a micro-batch
};

/// The writing end. Holds an exclusive lock on the file; the lock ends with the process, however it ends.
class Ledger {
 public:
  /// Opens or creates `run_directory`/ledger.jsonl, cuts a torn last line (one that lacks its line feed only is ended),
  /// takes the next attempt number. Throws Error(io) if another process writes it, or if it cannot be written,
  /// Error(bad_data) where no number is left for an attempt.
  Ledger(const std::filesystem::path& run_directory, const Clock& clock);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  int attempt() const { return attempt_; }  ///< from 1
  /// What earlier attempts left: what they are charged, what to replay.
  const LedgerHistory& history() const { return *history_; }

  /// Each call writes and fsyncs one line; throws Error(io) if that fails.
  /// As early as possible, so that death while loading is charged too: with from_step = -1 first, and again, complete,
  /// once the checkpoint to go on from is loaded. The last call counts.
  void begin(const AttemptStart& start);
  void variants(const std::map<std::string, std::string>& chosen);  ///< when chosen after begin
  void heartbeat(const AttemptProgress& progress);
  void checkpoint(const CheckpointCommit& commit, const AttemptProgress& progress);
  void evaluation(const EvaluationResult& result, const AttemptProgress& progress);
  void suites(const SuiteResult& result, const AttemptProgress& progress);
  void horizon(const HorizonDecision& decision);
  void pipeline(const PipelineUse& use);
  void data(const DataReading& reading);                    ///< of the attempt up to now, summed over ranks
  void experts(const std::vector<double>& max_violations);  ///< of each mixture, in the last step
  void phase(const std::string& name, const AttemptProgress& progress);  ///< a phase begins
  void note(const std::string& kind, const std::string& text);           ///< a skipped step, a fallback, an override
  /// Last line. `reason`: "done", "budget", "preempted", "failed", kMeasuredOnly; `text` is the error's, if any.
  /// At most once; later calls do nothing, so that an error's handler may call it too.
  void end(const std::string& reason, int exit_code, const std::string& text, const AttemptProgress& progress);

  /// True when the next heartbeat should be written: after half a second at first, after 0.2% of the attempt's age
  /// later, at most half a minute. So death costs little certainty, and long runs do not write gigabytes.
  bool heartbeat_due() const;

 private:
  void end_last_line(const std::string& content);
  void write(std::string_view kind, Json content);

  std::filesystem::path file_;
  const Clock& clock_;
  std::unique_ptr<LedgerHistory> history_;
  int descriptor_ = -1;
  int attempt_ = 0;
  bool ended_ = false;
  double last_progress_ = 0;
  double previous_alive_ = 0;  // last sign of life of the attempt before; 0: none
};

}  // namespace shoestring
