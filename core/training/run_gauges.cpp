#include "core/training/run_gauges.h"

#include <fmt/core.h>

#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr double kSecondsBetween = 10;

/// Of a label: backslash, quote and line end are escaped, and nothing else steers a reader.
std::string label(const std::string& value) {
  std::string text;
  for (const char letter : value) {
    if (letter == '\\' || letter == '"') text += '\\';
    if (letter == '\n') {
      text += "\\n";
    } else {
      text += static_cast<unsigned char>(letter) < 0x20 ? ' ' : letter;
    }
  }
  return text;
}

class Exposition {
 public:
  explicit Exposition(std::string labels) : labels_(std::move(labels)) {}

  /// One family; `more` are labels of this sample besides the run's.
  void family(const char* name, const char* type, const char* help) {
    name_ = name;
    counter_ = std::string_view(type) == "counter";
    text_ += fmt::format("# TYPE {0} {1}\n# HELP {0} {2}\n", name, type, help);
  }
  void sample(double value, const std::string& more = {}) {
    const std::string number = std::isfinite(value) ? fmt::format("{}", value)
                               : std::isnan(value)  ? "NaN"
                               : value > 0          ? "+Inf"
                                                    : "-Inf";
    text_ += fmt::format("{}{}{{{}{}}} {}\n", name_, counter_ ? "_total" : "", labels_, more, number);
  }
  void one(const char* name, const char* type, const char* help, double value) {
    family(name, type, help);
    sample(value);
  }
  std::string take() { return std::move(text_) + "# EOF\n"; }

 private:
  std::string labels_;
  std::string text_;
  std::string name_;
  bool counter_ = false;
};

}  // namespace

std::string gauges_text(const RunGauges& g) {
  Exposition out(fmt::format("run=\"{}\",project=\"{}\"", label(g.run), label(g.project.empty() ? g.run : g.project)));
  const StepMetrics& step = g.step;
  out.one("shoestring_running", "gauge", "1 while a process trains this run", g.running ? 1 : 0);
  out.one("shoestring_ranks", "gauge", "devices of the present attempt", g.ranks);
  out.one("shoestring_attempt", "gauge", "number of the present attempt", step.attempt);
  out.one("shoestring_steps", "counter", "optimizer steps of the run", static_cast<double>(step.step));
  out.one("shoestring_tokens", "counter", "tokens of text read in training", static_cast<double>(step.tokens));
  out.one("shoestring_gpu_hours", "counter", "GPU-hours charged to the run, all attempts", step.gpu_hours);
  if (std::isfinite(g.cap_gpu_hours)) out.one("shoestring_cap_gpu_hours", "gauge", "the cap", g.cap_gpu_hours);
  if (step.usd > 0) out.one("shoestring_usd", "counter", "money charged to the run, all attempts", step.usd);
  if (g.seconds_left >= 0) {
    out.one("shoestring_seconds_left", "gauge", "wall-clock seconds to the planned end", g.seconds_left);
  }
  out.one("shoestring_loss", "gauge", "nats per token, last step", step.loss);
  out.one("shoestring_gradient_norm", "gauge", "before clipping, last step", step.gradient_norm);
  out.one("shoestring_learning_rate", "gauge", "of the last step", step.learning_rate);
  out.one("shoestring_tokens_per_second", "gauge", "of the last step", step.tokens_per_second);
  out.one("shoestring_clipped_steps", "counter", "steps whose gradient was clipped",
          static_cast<double>(step.clipped_steps));
  out.one("shoestring_skipped_steps", "counter", "steps that left the weights as they were",
          static_cast<double>(step.skipped_steps));
  out.one("shoestring_memory_bytes", "gauge", "peak of rank 0's tensors", static_cast<double>(step.memory_bytes));
  out.one("shoestring_step_unix_seconds", "gauge", "when the last step ended", step.unix_seconds);
  if (g.evaluation) {
    out.one("shoestring_held_out_loss", "gauge", "nats per held-out token, last evaluation", g.evaluation->loss);
    if (g.evaluation->bits_per_byte > 0) {
      out.one("shoestring_held_out_bits_per_byte", "gauge", "last evaluation", g.evaluation->bits_per_byte);
    }
  }
  if (!step.utilisation.empty()) {
    out.family("shoestring_utilisation", "gauge", "FLOPs of the format in the last step over seconds x ranks x peak");
    for (const auto& [format, share] : step.utilisation)
      out.sample(share, fmt::format(",format=\"{}\"", label(format)));
  }
  if (!step.shares.empty()) {
    out.family("shoestring_quantisation_share", "gauge", "share of values saturated or underflowed in the last step");
    for (const auto& [kind, share] : step.shares) out.sample(share, fmt::format(",kind=\"{}\"", label(kind)));
  }
  return out.take();
}

std::string GaugesFile::write(const RunGauges& gauges, double monotonic_seconds) {
  if (monotonic_seconds - last_ < kSecondsBetween) return {};
  last_ = monotonic_seconds;
  return write_now(gauges);
}

std::string GaugesFile::write_now(const RunGauges& gauges) {
  try {
    replace_file(path_, gauges_text(gauges));
  } catch (const Error& error) {
    if (failed_) return {};
    failed_ = true;
    return error.what();
  }
  return {};
}

}  // namespace shoestring
