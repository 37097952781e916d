#include "tools/plan_text.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/recipe/units.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr double kGiB = 1 << 30;

RunEstimate estimate(const PlanQuestion& q) {
  return estimate_run(q.recipe, q.config, q.hardware, q.devices, q.fixed, q.cap.gpu_hours, q.corrections);
}

/// One changed thing, and what the run comes to with it; nothing where that cannot be.
struct WhatIf {
  std::string what;
  std::optional<RunEstimate> run;
  std::string reason;
  double usd_low = 0;
  double usd_high = 0;
};

/// Asks of `q` with something changed. `hardware` and `recipe` stand for its own where nothing else is given.
class Changes {
 public:
  explicit Changes(const PlanQuestion& q) : q_(q) {}

  void recipe(std::string what, const Recipe& recipe) { ask(std::move(what), recipe, q_.hardware, q_.devices); }
  void devices(int count) { ask(fmt::format("on {} devices", count), q_.recipe, q_.hardware, count); }
  void hardware(const char* name) {
    if (q_.hardware.name == name) return;
    ask(fmt::format("on {}", name), q_.recipe, read_hardware(find_hardware(name, q_.recipe_folder)), q_.devices);
  }
  std::vector<WhatIf> answers;

 private:
  void ask(std::string what, const Recipe& recipe, const Hardware& hardware, int devices) {
    WhatIf answer{std::move(what), {}, {}, hardware.usd_low, hardware.usd_high};
    try {
      // What was measured holds for this device alone.
      const bool same = hardware.name == q_.hardware.name;
      RunEstimate run = estimate({recipe, q_.config, hardware, q_.cap, devices, q_.fixed, q_.recipe_folder,
                                  same ? q_.corrections : std::vector<Correction>{}});
      answer.reason = run.refusal;
      if (run.refusal.empty()) answer.run = std::move(run);
    } catch (const Error& error) {
      answer.reason = error.what();
    }
    answers.push_back(std::move(answer));
  }

  const PlanQuestion& q_;
};

std::vector<WhatIf> what_ifs(const PlanQuestion& q) {
  Changes changes(q);
  Recipe other = q.recipe;
  const bool bf16 = q.recipe.precision.policy == PrecisionPolicy::bf16;
  other.precision.policy = bf16 ? PrecisionPolicy::fp8_block : PrecisionPolicy::bf16;
  if (!bf16 || q.hardware.peak_flops[RateFormat::fp8] > 0) changes.recipe(bf16 ? "in FP8" : "in BF16", other);
  for (const int devices : {q.devices / 2, q.devices * 2}) {
    if (!q.fixed && devices >= 1) changes.devices(devices);
  }
  for (const char* name : {"a100_80", "h100", "h200", "b200"}) changes.hardware(name);
  return std::move(changes.answers);
}

/// What would make a run fit that does not: each change alone, the cheapest first.
std::vector<WhatIf> ways_to_fit(const PlanQuestion& question) {
  PlanQuestion q = question;
  q.fixed.reset();
  Changes changes(q);
  if (question.fixed) changes.recipe("without --layout", q.recipe);
  Recipe smaller = q.recipe;
  bool shrinks = false;
  for (PhaseSpec& phase : smaller.phases) shrinks = std::exchange(phase.micro_batch, 1) > 1 || shrinks;
  if (shrinks) changes.recipe("micro_batch = 1 in every phase", smaller);
  Recipe shorter = q.recipe;
  shorter.precision.moments = MomentFormat::bf16;
  if (q.recipe.precision.moments != MomentFormat::bf16) changes.recipe("precision.moments = bf16", shorter);
  constexpr int kMostDevices = 65536;
  for (int devices = q.devices * 2; devices <= kMostDevices; devices *= 2) {
    changes.devices(devices);
    if (changes.answers.back().run) break;
  }
  for (const char* name : {"h200", "b200"}) changes.hardware(name);
  std::erase_if(changes.answers, [](const WhatIf& answer) { return !answer.run; });
  std::stable_sort(changes.answers.begin(), changes.answers.end(),
                   [](const WhatIf& a, const WhatIf& b) { return a.run->gpu_hours() < b.run->gpu_hours(); });
  return std::move(changes.answers);
}

std::string money(const PlanQuestion& question, double gpu_hours) {
  if (const auto price = price_of(question.recipe.budget)) return "$" + rounded(price->usd(gpu_hours));
  return "-";
}

void print_money(const PlanQuestion& q, const RunEstimate& run) {
  if (const auto price = price_of(q.recipe.budget)) {
    fmt::print("             ${} (${} to ${}) at ${} per GPU-hour: {}, {}\n", rounded(price->usd(run.gpu_hours())),
               rounded(price->usd(run.low_gpu_hours())), rounded(price->usd(run.high_gpu_hours())),
               price->usd_per_gpu_hour, price->source, price->date);
  }
  if (q.hardware.usd_high > 0) {
    fmt::print("             ${} to ${} at prices seen, ${} to ${} per GPU-hour: {}, {}\n",
               rounded(q.hardware.usd_low * run.gpu_hours()), rounded(q.hardware.usd_high * run.gpu_hours()),
               q.hardware.usd_low, q.hardware.usd_high, q.hardware.price_source, q.hardware.price_date);
  }
}

void print_layouts(const PlanQuestion& q) {
  const PhaseSpec& phase = q.recipe.phases.front();
  const auto ranked = rank_layouts(q.recipe, q.config, phase, q.hardware, q.devices, q.fixed,
                                   q.corrections.empty() ? Correction{} : q.corrections.front());
  fmt::print("layouts      of phase {}, the fastest first; shares of the step, and memory of the fullest device\n",
             phase.name);
  fmt::print("             {:>9} {:>8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8}  layout\n", "tok/s/GPU", "compute", "again",
             "tensor", "expert", "data", "bubble", "GiB");
  constexpr std::size_t kShown = 8;
  for (std::size_t i = 0; i < std::min(kShown, ranked.size()); ++i) {
    const RankedLayout& row = ranked[i];
    if (!row.step) {
      fmt::print("             {:>9}  {}: {}\n", "-", to_string(row.layout), row.reason);
      continue;
    }
    const StepParts& s = row.step->seconds;
    const auto share = [&](double seconds) { return 100 * seconds / s.total(); };
    fmt::print("             {:>9.0f} {:>7.1f}% {:>6.1f}% {:>6.1f}% {:>6.1f}% {:>6.1f}% {:>6.1f}% {:>8.1f}  {}\n",
               row.step->tokens_per_device_second(row.layout.devices), share(s.compute + s.optimizer),
               share(s.recompute), share(s.tensor), share(s.expert), share(s.data), share(s.bubble),
               row.memory_bytes / kGiB, to_string(row.layout));
  }
}

void print_answers(const std::vector<WhatIf>& answers) {
  for (const WhatIf& answer : answers) {
    if (!answer.run) {
      fmt::print("             {:<30} {}\n", answer.what, answer.reason);
      continue;
    }
    const double hours = answer.run->gpu_hours();
    fmt::print("             {:<30} {:>12} {:>12} {:>22}\n", answer.what, rounded(hours), rounded(answer.run->tokens()),
               answer.usd_high > 0
                   ? fmt::format("{} to {}", rounded(answer.usd_low * hours, 3), rounded(answer.usd_high * hours, 3))
                   : "no price known");
  }
}

void print_refusal(const PlanQuestion& q, const RunEstimate& run) {
  fmt::print("foretold     does not fit: {}\n", run.refusal);
  const std::vector<WhatIf> ways = ways_to_fit(q);
  if (ways.empty()) {
    fmt::print("             nor would it with smaller micro-batches, BF16 moments, more devices or larger ones\n");
    return;
  }
  fmt::print("it would fit {:<30} {:>12} {:>12} {:>22}\n", "(the cheapest change first)", "GPU-hours", "tokens",
             "usd at prices seen");
  print_answers(ways);
}

void print_what_ifs(const PlanQuestion& q) {
  fmt::print("what if      {:<30} {:>12} {:>12} {:>22}\n", "", "GPU-hours", "tokens", "usd at prices seen");
  print_answers(what_ifs(q));
}

}  // namespace

bool print_estimate(const PlanQuestion& q) {
  const RunEstimate run = estimate(q);
  if (!run.refusal.empty()) {
    print_refusal(q, run);
    return false;
  }
  fmt::print("foretold     from {}.hardware, {} devices\n", q.hardware.name, run.devices);
  fmt::print("             {:<20} {:>10} {:>12} {:>12} {:>10}\n", "phase", "tokens", "GPU-hours", "usd", "steps");
  for (const PhaseEstimate& phase : run.phases) {
    fmt::print("             {:<20} {:>10} {:>12} {:>12} {:>10}  {}\n", phase.name, rounded(phase.tokens),
               rounded(phase.gpu_hours), money(q, phase.gpu_hours), rounded(phase.steps),
               to_string(phase.layout.layout));
  }
  fmt::print("             {} GPU-hours, 80% interval {} to {}; {:.3g} days on {} devices; {} kWh\n",
             rounded(run.gpu_hours()), rounded(run.low_gpu_hours()), rounded(run.high_gpu_hours()), run.days(),
             run.devices, rounded(run.kwh()));
  print_money(q, run);
  const double cap = q.cap.gpu_hours;
  if (!std::isinf(cap) && q.recipe.schedule.horizon != Horizon::budget) {
    const std::string verdict = run.high_gpu_hours() <= cap  ? "fits the cap"
                                : run.gpu_hours() <= cap     ? "fits the cap, but not over the whole interval"
                                : run.low_gpu_hours() <= cap ? "may pass the cap"
                                                             : "does not fit the cap";
    fmt::print("             {}: {:.0f}% of {} GPU-hours\n", verdict, 100 * run.gpu_hours() / cap, rounded(cap));
  }
  fmt::print("             it leans on, the most important first:\n");
  for (const std::string& assumption : run.assumptions) fmt::print("               {}\n", assumption);
  print_layouts(q);
  print_what_ifs(q);
  return true;
}

Json plan_json(const PlanQuestion& q) {
  const RunEstimate run = estimate(q);
  Json phases = Json::array();
  for (const PhaseEstimate& phase : run.phases) {
    const StepParts& s = phase.layout.step->seconds;
    const DeviceMemory& m = phase.layout.step->memory;
    phases.push(Json::object({{"name", phase.name},
                              {"tokens", std::round(phase.tokens)},
                              {"steps", phase.steps},
                              {"gpu_hours", phase.gpu_hours},
                              {"layout", to_string(phase.layout.layout)},
                              {"step_seconds", Json::object({{"compute", s.compute},
                                                             {"recompute", s.recompute},
                                                             {"tensor", s.tensor},
                                                             {"expert", s.expert},
                                                             {"data", s.data},
                                                             {"bubble", s.bubble},
                                                             {"optimizer", s.optimizer}})},
                              {"memory_bytes", Json::object({{"weights", m.weights},
                                                             {"gradients", m.gradients},
                                                             {"moments", m.moments},
                                                             {"activations", m.activations},
                                                             {"working", m.working},
                                                             {"reserved", m.reserved}})}}));
  }
  Json others = Json::array();
  for (const WhatIf& answer : run.refusal.empty() ? what_ifs(q) : ways_to_fit(q)) {
    others.push(Json::object({{"what", answer.what},
                              {"gpu_hours", answer.run ? Json(answer.run->gpu_hours()) : Json()},
                              {"reason", answer.reason}}));
  }
  Json assumptions = Json::array();
  for (const std::string& assumption : run.assumptions) assumptions.push(assumption);
  const auto price = price_of(q.recipe.budget);
  return Json::object({{"schema", "shoestring.estimate/1"},
                       {"hardware", q.hardware.name},
                       {"devices", run.devices},
                       {"fits", run.refusal.empty()},
                       {"refusal", run.refusal},
                       {"gpu_hours", run.gpu_hours()},
                       {"gpu_hours_low", run.low_gpu_hours()},
                       {"gpu_hours_high", run.high_gpu_hours()},
                       {"usd", price ? Json(price->usd(run.gpu_hours())) : Json()},
                       {"price_source", price ? Json(price->source) : Json()},
                       {"days", run.days()},
                       {"tokens", run.tokens()},
                       {"steps", run.steps()},
                       {"kwh", run.kwh()},
                       {"goodput", run.goodput.share},
                       {"assumptions", std::move(assumptions)},
                       {"phases", std::move(phases)},
                       {"what_if", std::move(others)}});
}

}  // namespace shoestring
