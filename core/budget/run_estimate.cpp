#include "core/budget/run_estimate.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/recipe/units.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr double kSecondsPerHour = 3600;
constexpr double kUsableMemory = 0.95;  // the rest is fragments
constexpr std::size_t kSimulated = 8;   // of the layouts that a quick look puts first
constexpr double kGiB = 1 << 30;

// Standard deviations of the logarithm of time, and 80% of a normal distribution.
constexpr double kDenseSpread = 0.07;       // blind rows of dense models: 4% to 6% median
constexpr double kMixtureSpread = 0.15;     // mixtures of experts: software differs by far more than devices do
constexpr double kUnmeasuredSpread = 0.08;  // a device whose rates by shape nobody measured
// What whole runs took beyond their steps at today's best layout and software, failures apart: 1.06 to 1.34 over LLaMA,
// Llama 2 and DeepSeek 67B (run_estimate_test.cpp). Slow nodes, stalls, software of its day, shared hours.
constexpr double kWholeRun = 1.18;
constexpr double kWholeRunSpread = 0.11;
constexpr double kEightyPercent = 1.2816;

StepQuestion question_of(const Recipe& recipe, const ModelConfig& config, const PhaseSpec& phase,
                         const PlanLayout& layout) {
  StepQuestion question{{.config = config}, recipe.precision, layout, static_cast<double>(phase.sequence)};
  question.layout.micro_batch = static_cast<int>(phase.micro_batch);
  const double sequences = static_cast<double>(phase.global_batch) / (layout.data() * question.layout.micro_batch);
  question.layout.micro_batches = static_cast<int>(std::ceil(sequences));
  return question;
}

/// Devices share a batch evenly, or wait for those that have one sequence more.
RankedLayout look_at(const StepQuestion& question, const PhaseSpec& phase, const Hardware& hardware, Detail detail,
                     const Correction& correction) {
  RankedLayout ranked;
  ranked.layout = question.layout;
  if (question.layout.devices % (question.layout.tensor * question.layout.context * question.layout.pipeline) == 0 &&
      phase.global_batch < question.layout.data()) {
    ranked.reason =
        fmt::format("a batch of {} sequences leaves data {} idle", phase.global_batch, question.layout.data());
    return ranked;
  }
  ranked.reason = impossible(question);
  if (!ranked.reason.empty()) return ranked;
  StepEstimate step = estimate_step(question, hardware, stack_named("fused"), detail);
  step.seconds = corrected(step.seconds, correction);
  step.tokens = static_cast<double>(phase.global_batch * phase.sequence);
  ranked.memory_bytes = step.memory.total();
  if (hardware.memory_bytes > 0 && ranked.memory_bytes > kUsableMemory * hardware.memory_bytes) {
    ranked.reason = fmt::format("needs {:.1f} GiB of {:.1f}", ranked.memory_bytes / kGiB, hardware.memory_bytes / kGiB);
    return ranked;
  }
  ranked.step = step;
  return ranked;
}

/// Calls `visit` with powers of two from 1 to `most`.
template <class Visit>
void powers(std::int64_t most, const Visit& visit) {
  for (int size = 1; size <= most; size *= 2) visit(size);
}

std::vector<PlanLayout> possible_layouts(const ModelConfig& config, const PhaseSpec& phase, const Hardware& hardware,
                                         int devices) {
  std::vector<PlanLayout> layouts;
  constexpr std::int64_t kMostTensor = 8;
  constexpr std::int64_t kMostContext = 32;
  constexpr std::int64_t kShortestPart = 4096;  // tokens of a sequence that is cut over devices
  const auto node = std::max<std::int64_t>(1, static_cast<std::int64_t>(hardware.devices_per_node));
  const auto add = [&](PlanLayout layout) {
    layout.schedule = ScheduleName::one_f_one_b;
    for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
      layout.recompute = recompute;
      if (layout.pipeline == 1) {
        for (const Sharding sharding : {Sharding::optimizer, Sharding::full}) {
          layout.sharding = sharding;
          layouts.push_back(layout);
        }
        continue;
      }
      for (const ScheduleName schedule : {ScheduleName::one_f_one_b, ScheduleName::zb_h1, ScheduleName::dualpipev}) {
        layout.schedule = schedule;
        layouts.push_back(layout);
      }
      layout.schedule = ScheduleName::interleaved;
      for (layout.chunks = 2; layout.chunks * layout.pipeline <= config.layers; layout.chunks *= 2) {
        layouts.push_back(layout);
      }
      layout.chunks = 1;
    }
  };
  powers(std::min({kMostTensor, node, std::int64_t{devices}}), [&](int tensor) {
    powers(std::clamp<std::int64_t>(phase.sequence / kShortestPart, 1, kMostContext), [&](int context) {
      powers(std::min<std::int64_t>(config.layers, devices), [&](int pipeline) {
        if (devices % (tensor * context * pipeline) != 0) return;
        powers(std::max<std::int64_t>(1, std::min<std::int64_t>(config.experts, devices / pipeline)), [&](int expert) {
          add({.devices = devices, .tensor = tensor, .context = context, .pipeline = pipeline, .expert = expert});
        });
      });
    });
  });
  return layouts;
}

double speed_of(const RankedLayout& layout) { return layout.step ? 1 / layout.step->seconds.total() : 0; }

/// Candidates by speed, then the others by what they lack.
bool better(const RankedLayout& a, const RankedLayout& b) {
  if (a.step.has_value() != b.step.has_value()) return a.step.has_value();
  if (a.step) return speed_of(a) > speed_of(b);
  const auto lacking = [](const RankedLayout& layout) {
    return layout.memory_bytes > 0 ? layout.memory_bytes : INFINITY;
  };
  return lacking(a) < lacking(b);
}

double spread_of(const ModelConfig& config, const Hardware& hardware, bool corrected) {
  const bool measured = corrected || hardware.half_extent[RateFormat::bf16] > 0;
  const double model = config.experts > 0 ? kMixtureSpread : kDenseSpread;
  const double device = measured ? 0 : kUnmeasuredSpread;
  const double sigma = std::sqrt(model * model + device * device + kWholeRunSpread * kWholeRunSpread);
  return std::exp(kEightyPercent * sigma) - 1;
}

std::vector<std::string> assumptions_of(const RunEstimate& run, const ModelConfig& config, const Hardware& hardware) {
  std::vector<std::string> list;
  const StepParts& step = run.phases.front().layout.step->seconds;
  if (config.experts > 0) {
    list.push_back("experts are evenly loaded, and their messages run at three quarters of the links' rates");
  }
  list.push_back(fmt::format("products reach {} of the best measured rate, less at small shapes ({})",
                             stack_named("fused").product_share,
                             hardware.extent_source.empty() ? "the file has no curve" : hardware.extent_source));
  // The larger share of a step leads.
  if (list.size() > 1 && step.compute > 2 * (step.expert + step.bubble)) std::swap(list[0], list[1]);
  list.push_back(fmt::format("software as good as today's fused stacks ({})", stack_named("fused").source));
  list.push_back(
      fmt::format("a failure every {} device-hours ({:.2g} a day here), restarts of 10 min: {:.1f}% of the "
                  "time is lost (arXiv 2407.21783)",
                  rounded(kDeviceHoursPerFailure), run.goodput.failures_a_day, 100 * run.goodput.lost));
  list.push_back(
      fmt::format("a whole run takes {} of what its steps do: stalls, slow nodes, evaluation (fitted on eight "
                  "published runs)",
                  kWholeRun));
  return list;
}

}  // namespace

std::vector<RankedLayout> rank_layouts(const Recipe& recipe, const ModelConfig& config, const PhaseSpec& phase,
                                       const Hardware& hardware, int devices, const std::optional<PlanLayout>& fixed,
                                       const Correction& correction) {
  const auto look = [&](const PlanLayout& layout, Detail detail) {
    return look_at(question_of(recipe, config, phase, layout), phase, hardware, detail, correction);
  };
  if (fixed) return {look(*fixed, Detail::simulated)};
  std::vector<RankedLayout> all;
  for (const PlanLayout& layout : possible_layouts(config, phase, hardware, devices)) {
    all.push_back(look(layout, Detail::unwaiting));
  }
  std::stable_sort(all.begin(), all.end(), better);
  for (std::size_t i = 0; i < std::min(kSimulated, all.size()) && all[i].step; ++i) {
    all[i] = look(all[i].layout, Detail::simulated);
  }
  if (all.size() > kSimulated && all[kSimulated].step) all.resize(kSimulated);
  std::stable_sort(all.begin(), all.end(), better);
  return all;
}

double RunEstimate::tokens() const {
  double sum = 0;
  for (const PhaseEstimate& phase : phases) sum += phase.tokens;
  return sum;
}
double RunEstimate::steps() const {
  double sum = 0;
  for (const PhaseEstimate& phase : phases) sum += phase.steps;
  return sum;
}
double RunEstimate::gpu_hours() const {
  double sum = 0;
  for (const PhaseEstimate& phase : phases) sum += phase.gpu_hours;
  return sum;
}

RunEstimate estimate_run(const Recipe& recipe, const ModelConfig& config, const Hardware& hardware, int devices,
                         const std::optional<PlanLayout>& fixed, double cap_gpu_hours,
                         const std::vector<Correction>& corrections) {
  RunEstimate run;
  run.devices = fixed ? fixed->devices : devices;
  run.watts = hardware.watts;
  constexpr double kCheckpointSeconds = 30;  // that steps stand still: written from host memory meanwhile
  constexpr double kSecondsPerMinute = 60;
  run.goodput = goodput_of({.devices = run.devices,
                            .checkpoint_seconds = kCheckpointSeconds,
                            .checkpoint_interval_seconds = recipe.checkpoint.every_minutes * kSecondsPerMinute});
  double shares = 0;
  for (const PhaseSpec& phase : recipe.phases) shares += phase.share;
  for (std::size_t i = 0; i < recipe.phases.size(); ++i) {
    const PhaseSpec& phase = recipe.phases[i];
    PhaseEstimate estimate;
    estimate.name = phase.name;
    const std::vector<RankedLayout> ranked = rank_layouts(recipe, config, phase, hardware, devices, fixed,
                                                          i < corrections.size() ? corrections[i] : Correction{});
    if (ranked.empty() || !ranked.front().step) {
      run.phases.clear();
      run.refusal = fmt::format(
          "phase {} has no layout on {} {}{}", phase.name, run.devices, hardware.name,
          ranked.empty() ? ""
                         : fmt::format("; nearest: {}: {}", to_string(ranked.front().layout), ranked.front().reason));
      return run;
    }
    estimate.layout = ranked.front();
    const StepEstimate& step = *estimate.layout.step;
    const double step_gpu_hours = step.seconds.total() * kWholeRun * run.devices / kSecondsPerHour / run.goodput.share;
    switch (recipe.schedule.horizon) {
      case Horizon::tokens: estimate.steps = static_cast<double>(phase.tokens) / step.tokens; break;
      case Horizon::steps: estimate.steps = static_cast<double>(phase.steps); break;
      case Horizon::budget: estimate.steps = std::floor(cap_gpu_hours * phase.share / shares / step_gpu_hours); break;
    }
    estimate.tokens = estimate.steps * step.tokens;
    estimate.gpu_hours = estimate.steps * step_gpu_hours;
    run.phases.push_back(std::move(estimate));
  }
  run.spread = spread_of(config, hardware, !corrections.empty());
  run.assumptions = assumptions_of(run, config, hardware);
  for (std::size_t i = corrections.size(); i-- > 0;) {
    const std::string text = corrections[i].text();
    run.assumptions.insert(run.assumptions.begin(),
                           fmt::format("phase {}: {}, as its steps on these ranks came out beside their estimate",
                                       recipe.phases[i].name, text.empty() ? "nothing changed" : text));
  }
  return run;
}

std::vector<Correction> corrections_of(const Recipe& recipe, const ModelConfig& config, const Hardware& hardware,
                                       const PlanLayout& layout, const Speeds& speeds) {
  std::vector<Correction> corrections;
  for (std::size_t i = 0; i < recipe.phases.size(); ++i) {
    const StepEstimate paper =
        estimate_step(question_of(recipe, config, recipe.phases[i], layout), hardware, stack_named("fused"));
    corrections.push_back(correction_of(paper.seconds, speeds.phases[i]));
  }
  return corrections;
}

}  // namespace shoestring
