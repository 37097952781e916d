#include "tools/plan_text.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/recipe/units.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr double kGiB = 1 << 30;

RunEstimate estimate(const PlanQuestion& q) {
  return estimate_run(q.recipe, q.config, q.hardware, q.devices, q.fixed, q.cap.gpu_hours);
}

/// One changed thing, and what the run comes to with it; nothing where that cannot be.
struct WhatIf {
  std::string what;
  std::optional<RunEstimate> run;
  std::string reason;
  double usd_low = 0;
  double usd_high = 0;
};

WhatIf what_if(std::string what, const PlanQuestion& question) {
  WhatIf answer;
  answer.what = std::move(what);
  try {
    RunEstimate run = estimate(question);
    answer.reason = run.refusal;
    if (run.refusal.empty()) answer.run = std::move(run);
    answer.usd_low = question.hardware.usd_low;
    answer.usd_high = question.hardware.usd_high;
  } catch (const Error& error) {
    answer.reason = error.what();
  }
  return answer;
}

std::vector<WhatIf> what_ifs(const PlanQuestion& q) {
  std::vector<WhatIf> answers;
  Recipe other = q.recipe;
  if (q.recipe.precision.policy != PrecisionPolicy::bf16) {
    other.precision.policy = PrecisionPolicy::bf16;
    answers.push_back(what_if("in BF16", {other, q.config, q.hardware, q.cap, q.devices, q.fixed, q.recipe_folder}));
  }
  if (q.recipe.precision.policy == PrecisionPolicy::bf16 && q.hardware.peak_flops[RateFormat::fp8] > 0) {
    other.precision.policy = PrecisionPolicy::fp8_block;
    answers.push_back(what_if("in FP8", {other, q.config, q.hardware, q.cap, q.devices, q.fixed, q.recipe_folder}));
  }
  for (const int devices : {q.devices / 2, q.devices * 2}) {
    if (q.fixed || devices < 1) continue;
    answers.push_back(what_if(fmt::format("on {} devices", devices),
                              {q.recipe, q.config, q.hardware, q.cap, devices, q.fixed, q.recipe_folder}));
  }
  for (const char* name : {"a100_80", "h100", "h200", "b200"}) {
    if (q.hardware.name == name) continue;
    const Hardware hardware = read_hardware(find_hardware(name, q.recipe_folder));
    answers.push_back(what_if(fmt::format("on {}", name),
                              {q.recipe, q.config, hardware, q.cap, q.devices, q.fixed, q.recipe_folder}));
  }
  return answers;
}

/// The fewest devices, by doubling, on which it fits.
std::optional<int> enough_devices(const PlanQuestion& question) {
  constexpr int kMost = 65536;
  for (int devices = question.devices * 2; devices <= kMost; devices *= 2) {
    const PlanQuestion more{question.recipe, question.config, question.hardware,     question.cap,
                            devices,         std::nullopt,    question.recipe_folder};
    if (estimate(more).refusal.empty()) return devices;
  }
  return std::nullopt;
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
  const auto ranked = rank_layouts(q.recipe, q.config, phase, q.hardware, q.devices, q.fixed);
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

void print_refusal(const PlanQuestion& q, const RunEstimate& run) {
  fmt::print("foretold     does not fit: {}\n", run.refusal);
  if (q.fixed) {
    fmt::print("             without --layout every layout of {} devices is looked at\n", q.devices);
    return;
  }
  if (const auto devices = enough_devices(q)) {
    fmt::print("             cheapest change: --devices {}\n", *devices);
  }
  for (const char* name : {"h200", "b200"}) {
    const Hardware hardware = read_hardware(find_hardware(name, q.recipe_folder));
    if (hardware.memory_bytes <= q.hardware.memory_bytes) continue;
    const PlanQuestion other{q.recipe, q.config, hardware, q.cap, q.devices, std::nullopt, q.recipe_folder};
    if (estimate(other).refusal.empty())
      fmt::print("             or devices with more memory: budget.hardware = {}\n", name);
  }
}

void print_what_ifs(const PlanQuestion& q) {
  fmt::print("what if      {:<20} {:>12} {:>12} {:>22}\n", "", "GPU-hours", "tokens", "usd at prices seen");
  for (const WhatIf& answer : what_ifs(q)) {
    if (!answer.run) {
      fmt::print("             {:<20} {}\n", answer.what, answer.reason);
      continue;
    }
    const double hours = answer.run->gpu_hours();
    fmt::print("             {:<20} {:>12} {:>12} {:>22}\n", answer.what, rounded(hours), rounded(answer.run->tokens()),
               answer.usd_high > 0
                   ? fmt::format("{} to {}", rounded(answer.usd_low * hours, 3), rounded(answer.usd_high * hours, 3))
                   : "no price known");
  }
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
  if (run.refusal.empty()) {
    for (const WhatIf& answer : what_ifs(q)) {
      others.push(Json::object({{"what", answer.what},
                                {"gpu_hours", answer.run ? Json(answer.run->gpu_hours()) : Json()},
                                {"reason", answer.reason}}));
    }
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
