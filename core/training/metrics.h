// What a run measured, step by step: metrics.jsonl, TensorBoard event files, and the live line on the terminal.
//
// In metrics.jsonl everything outside "timing" is a function of the recipe, the data and the decisions in the ledger:
// a resumed run writes the same bytes as an undisturbed one. Doubles that matter are written in hexadecimal too.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/budget/ledger.h"
#include "core/training/event_file.h"

namespace shoestring {

struct StepMetrics {
  std::int64_t step = 0;
  std::string phase;
  std::int64_t tokens = 0;          ///< of text, read so far
  std::int64_t learned_tokens = 0;  ///< of those
  std::int64_t sequences = 0;       ///< of this global batch
  double loss = 0;                  ///< nats per learned token, main model
  double mtp_loss = 0;              ///< of the multi-token prediction module; 0 without one
  double gradient_norm = 0;         ///< before clipping
  double learning_rate = 0;
  double expert_overload = 0;  ///< largest expert load over the mean, minus 1 (MaxVio), worst layer; 0 without experts
  double clipped_to = 0;       ///< the norm that was applied; 0: the gradient was not clipped
  std::string skipped;         ///< why the step was not applied; empty when it was
  std::string stands_out;      ///< what stood out although the step was applied
  std::string went_back;       ///< why the run went back to a checkpoint
  std::int64_t clipped_steps = 0;  ///< so far, as the next
  std::int64_t skipped_steps = 0;
  std::vector<std::pair<std::string, double>> shares;  ///< "saturated.activation", "underflowed.gradient", ...

  // Timing: depends on the machine.
  int attempt = 0;
  double unix_seconds = 0;
  double step_seconds = 0;
  double tokens_per_second = 0;                             ///< read, learned or not
  double gpu_hours = 0;                                     ///< spent by the run
  double usd = 0;                                           ///< 0: no price
  std::int64_t memory_bytes = 0;                            ///< peak of this rank's tensors
  std::vector<std::pair<std::string, double>> utilisation;  ///< per number format: FLOP/s over the device's peak
};

struct EvaluationMetrics {
  std::int64_t step = 0;
  std::int64_t tokens = 0;   ///< held-out tokens
  double loss = 0;           ///< nats per token
  double bits_per_byte = 0;  ///< 0: none, as of conversations
};

class MetricsLog {
 public:
  /// Appends to RUN/metrics.jsonl. Lines after `last_step` (of an attempt that died) and a torn last line are dropped.
  MetricsLog(const std::filesystem::path& run_directory, std::int64_t last_step, bool tensorboard, double unix_seconds);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  /// Steps up to `last_step` that it has no line of: the file, or lines of it, are gone.
  std::int64_t missing_steps() const { return missing_steps_; }

  void step(const StepMetrics& metrics);
  void evaluation(const EvaluationMetrics& metrics, double unix_seconds);
  void suites(const SuiteResult& result, double unix_seconds);

 private:
  void line(const std::string& text);
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::int64_t missing_steps_ = 0;
  std::unique_ptr<EventFile> events_;
};

/// One line that says how the run is doing: rewritten in place on a terminal, a plain line now and then elsewhere. What
/// cannot be printed, as on a terminal that is gone, is lost, and nothing else with it.
class ProgressLine {
 public:
  /// `alone`: one rank. mpirun gives ranks a terminal of its own even where its output goes to a file.
  ProgressLine(std::FILE* out, bool alone);
  /// `text` replaces the line. Elsewhere than on a terminal it is printed when `seconds` since the last print have
  /// passed.
  void update(const std::string& text, double monotonic_seconds);
  /// A line of its own that stays.
  void say(const std::string& text);
  /// What stands on a terminal goes away.
  void wipe();

 private:
  void write(const std::string& text);

  std::FILE* out_;
  bool terminal_;
  bool shown_ = false;
  double last_ = -1e9;
};

/// The text of the live line.
struct ProgressFacts {
  std::int64_t step = 0;
  double loss = 0;
  double tokens_per_second = 0;
  double spent_gpu_hours = 0;
  double cap_gpu_hours = 0;  ///< infinite: none
  double usd = 0;            ///< 0: no price
  double usd_left = 0;       ///< of the cap, where there is a price
  double held_out_loss = 0;  ///< of the last evaluation; 0: none yet
  double seconds_left = 0;   ///< to the planned end; below 0: not known yet
  std::string phase;
};
std::string progress_text(const ProgressFacts& facts);

}  // namespace shoestring
