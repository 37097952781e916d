#include "core/training/live_view.h"

namespace shoestring {

LiveView::LiveView(const RunSpec& run, int ranks, const std::filesystem::path& directory, std::FILE* out)
    : line_(out, ranks == 1),
      file_(directory),
      gauges_({.run = run.name, .project = run.project, .ranks = ranks, .step = {}, .evaluation = {}}) {}

void LiveView::working(const Progress& progress, double monotonic_seconds) {
  const std::string text = pace_.text(progress, monotonic_seconds);
  if (!text.empty()) line_.update(text, monotonic_seconds);
}

void LiveView::stepped(const StepMetrics& metrics, const LiveFacts& facts, double monotonic_seconds) {
  stepped_ = true;
  gauges_.step = metrics;
  gauges_.cap_gpu_hours = facts.cap_gpu_hours;
  gauges_.seconds_left = facts.seconds_left;
  line_.update(progress_text({.step = metrics.step,
                              .loss = metrics.loss,
                              .tokens_per_second = metrics.tokens_per_second,
                              .spent_gpu_hours = metrics.gpu_hours,
                              .cap_gpu_hours = facts.cap_gpu_hours,
                              .usd = metrics.usd,
                              .usd_left = facts.usd_left,
                              .held_out_loss = gauges_.evaluation ? gauges_.evaluation->loss : 0,
                              .seconds_left = facts.seconds_left,
                              .phase = metrics.phase}),
               monotonic_seconds);
  const std::string failed = file_.write(gauges_, monotonic_seconds);
  if (!failed.empty()) say(failed);
}

void LiveView::ended() {
  if (!stepped_) return;
  gauges_.running = false;
  gauges_.seconds_left = 0;
  const std::string failed = file_.write_now(gauges_);
  if (!failed.empty()) say(failed);
}

}  // namespace shoestring
