// What must hold of the phases and of the schedule over them.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/optimizer/warm_up.h"
#include "core/recipe/data_mix.h"
#include "core/recipe/rules.h"
#include "core/recipe/scan.h"
#include "core/recipe/validate.h"

namespace shoestring {
namespace {

/// The most steps in which the first `share` of a phase can be behind: all of its ramp, if any, in its smallest
/// batches. 0 where not known.
double most_steps(const Recipe& recipe, const PhaseSpec& phase, double share) {
  if (recipe.schedule.horizon == Horizon::steps) return share * static_cast<double>(phase.steps);
  if (recipe.schedule.horizon == Horizon::budget || phase.sequence <= 0 || phase.global_batch <= 0) return 0;
  const auto steps = [&](double tokens, std::int64_t batch) {
    return std::ceil(tokens / static_cast<double>(phase.sequence) / static_cast<double>(batch));
  };
  const double tokens = share * static_cast<double>(phase.tokens);
  if (phase.batch_ramp_from <= 0) return steps(tokens, phase.global_batch);
  const double ramp = std::min(static_cast<double>(phase.batch_ramp_tokens), tokens);
  return steps(ramp, phase.batch_ramp_from) + steps(tokens - ramp, phase.global_batch);
}

/// The least steps in which the batch of a phase can grow: a batch that follows the ramp with every token, not only
/// from step to step, is there no later. With S tokens behind, dS/dstep = sequence (from + (to - from) S / ramp).
double least_ramp_steps(const PhaseSpec& phase) {
  const auto from = static_cast<double>(phase.batch_ramp_from);
  const auto to = static_cast<double>(phase.global_batch);
  const double ramp = static_cast<double>(phase.batch_ramp_tokens) / static_cast<double>(phase.sequence);
  return to > from ? ramp / (to - from) * std::log(to / from) : ramp / to;
}

void check_ramp(const Recipe& recipe, const PhaseSpec& phase, Rules& rules) {
  const std::string section = "phase." + phase.name;
  const std::string ramp = section + ".batch_ramp_tokens";
  if (recipe.schedule.horizon == Horizon::tokens) {
    rules.unless(phase.batch_ramp_tokens <= phase.tokens, {ramp, section + ".tokens"},
                 fmt::format("{} = {} is more than the phase has ({} tokens): its batch never grows to global_batch",
                             ramp, phase.batch_ramp_tokens, phase.tokens));
  }
  const bool ramped = phase.batch_ramp_from > 0 && phase.global_batch > 0 && phase.sequence > 0;
  if (recipe.schedule.horizon != Horizon::steps || !ramped) return;
  const double least = least_ramp_steps(phase);
  rules.unless(
      least <= static_cast<double>(phase.steps), {ramp, section + ".steps"},
      fmt::format("{} = {} takes at least {:.0f} steps, and the phase has {}: its batch never grows to "
                  "global_batch; give it {:.0f} tokens at most, or more steps",
                  ramp, phase.batch_ramp_tokens, std::ceil(least), phase.steps,
                  std::floor(static_cast<double>(phase.batch_ramp_tokens) / least * static_cast<double>(phase.steps))));
}

void check_phase_length(const Recipe& recipe, const PhaseSpec& phase, const std::string& section, Rules& rules) {
  switch (recipe.schedule.horizon) {
    case Horizon::tokens:
      rules.unless(phase.tokens > 0, {section + ".tokens", "schedule.horizon"},
                   fmt::format("{}.tokens is missing: schedule.horizon = tokens", section));
      break;
    case Horizon::steps:
      rules.unless(phase.steps > 0, {section + ".steps", "schedule.horizon"},
                   fmt::format("{}.steps is missing: schedule.horizon = steps", section));
      break;
    case Horizon::budget:
      rules.unless(phase.share > 0, {section + ".share"}, fmt::format("{}.share must be above 0", section));
      break;
  }
}

void check_batch(const Recipe& recipe, const PhaseSpec& phase, const std::string& section, Rules& rules) {
  const std::string global = section + ".global_batch";
  const std::string micro = section + ".micro_batch";
  const std::string ramp = section + ".batch_ramp_from";
  const std::int64_t groups = recipe.parallel.reduction_groups;
  const std::int64_t ranks = recipe.parallel.data;
  rules.unless(phase.global_batch > 0, {global}, fmt::format("{} is missing: sequences per optimizer step", global));
  const auto divides = [&](std::int64_t batch, const std::string& key) {
    if (batch <= 0) return;
    rules.unless(batch % phase.micro_batch == 0, {key, micro},
                 fmt::format("{} = {} is not divisible by {} = {}", key, batch, micro, phase.micro_batch));
    if (batch % phase.micro_batch != 0) return;
    const std::int64_t micros = batch / phase.micro_batch;
    rules.unless(
        groups == 0 || micros % groups == 0, {"parallel.reduction_groups", key, micro},
        fmt::format("parallel.reduction_groups = {} does not divide the {} micro-batches of {}", groups, micros, key));
    rules.unless(ranks == 0 || micros % ranks == 0, {"parallel.data", key, micro},
                 fmt::format("parallel.data = {} does not divide the {} micro-batches of {}", ranks, micros, key));
  };
  divides(phase.global_batch, global);
  divides(phase.batch_ramp_from, ramp);
  rules.unless((phase.batch_ramp_from > 0) == (phase.batch_ramp_tokens > 0), {ramp, section + ".batch_ramp_tokens"},
               fmt::format("a ramp needs both {} and {}.batch_ramp_tokens", ramp, section));
  rules.unless(phase.batch_ramp_from <= phase.global_batch || phase.global_batch == 0, {ramp, global},
               fmt::format("{} = {} is above {} = {}", ramp, phase.batch_ramp_from, global, phase.global_batch));
}

void check_objective(const Recipe& recipe, const PhaseSpec& phase, const std::string& section, Rules& rules) {
  const bool masked = phase.objective == ObjectiveName::masked;
  rules.unless(masked || phase.loss_mean == LossMean::tokens, {section + ".loss_mean", section + ".objective"},
               fmt::format("{0}.loss_mean = documents needs {0}.objective = masked", section));
  rules.unless(!masked || (recipe.data.document_mask && recipe.data.fim_rate == 0),
               {section + ".objective", "data.document_mask", "data.fim_rate"},
               fmt::format("{}.objective = masked needs data.document_mask = yes and data.fim_rate = 0: conversations "
                           "are neither read into each other nor rearranged",
                           section));
  rules.unless(phase.patience == 0 || recipe.evaluation.every_steps > 0,
               {section + ".patience", "evaluation.every_steps"},
               fmt::format("{}.patience counts evaluations: set evaluation.every_steps", section));
  rules.unless(phase.patience == 0 || !phase.validation.empty() || !recipe.data.validation.empty(),
               {section + ".patience", "data.validation"},
               fmt::format("{0}.patience waits for held-out losses, and there is no held-out data: set data.validation "
                           "or {0}.validation, or leave it out",
                           section));
}

/// A source of almost no weight would never be drawn: the mixture knows shares to 2^-32.
void check_weights(const Recipe& recipe, const PhaseSpec& phase, const std::string& section, Rules& rules) {
  const std::vector<SourceSpec> sources = phase_data(recipe, phase).train;
  const std::string key = phase.train.empty() ? "data.train" : section + ".train";
  double total = 0;
  for (const SourceSpec& source : sources) total += source.weight;
  for (const SourceSpec& source : sources) {
    rules.unless(rules.blamed(key) || source.weight / total >= 0x1p-32, {key},
                 fmt::format("{}: {} has a weight of {} among {}, less than 2^-32 of them: it would never be drawn; "
                             "leave it out or give it more",
                             key, quote_text(source.path), source.weight, total));
  }
}

void check_mix(const Recipe& recipe, const PhaseSpec& phase, const std::string& section, Rules& rules) {
  const PhaseData data = phase_data(recipe, phase);
  const std::string mix = phase.mix.empty() ? "data.mix" : section + ".mix";
  const std::string limits = phase.most_epochs.empty() ? "data.most_epochs" : section + ".most_epochs";
  std::vector<MixPoint> points;
  std::string mistake = parse_mix(data, points);
  rules.unless(mistake.empty(), {mix}, fmt::format("{}: {}", mix, mistake));
  rules.unless(data.mix.empty() || recipe.schedule.horizon != Horizon::budget, {mix, "schedule.horizon"},
               fmt::format("{} changes by shares of a phase's length, which with schedule.horizon = budget depends on "
                           "speed; take tokens or steps",
                           mix));
  rules.unless(data.mix.empty() || recipe.schedule.horizon != Horizon::steps || phase.batch_ramp_from == 0,
               {mix, section + ".batch_ramp_from"},
               fmt::format("{} with {}.batch_ramp_from needs schedule.horizon = tokens", mix, section));
  std::vector<double> epochs;
  mistake = parse_most_epochs(data, epochs);
  rules.unless(mistake.empty(), {limits}, fmt::format("{}: {}", limits, mistake));
  const bool ends = !epochs.empty() && std::all_of(epochs.begin(), epochs.end(), [](double most) { return most > 0; });
  rules.unless(!ends || recipe.schedule.horizon != Horizon::budget, {limits, "schedule.horizon"},
               fmt::format("{} limits every source, so the data could end before the budget of schedule.horizon = "
                           "budget; give one of them 0, or take tokens or steps",
                           limits));
}

}  // namespace

std::string held_out_caveat(const Recipe& recipe) {
  const auto& phases = recipe.phases;
  const bool held_out =
      !recipe.data.validation.empty() ||
      std::any_of(phases.begin(), phases.end(), [](const PhaseSpec& phase) { return !phase.validation.empty(); });
  const EvaluationSpec& evaluation = recipe.evaluation;
  if (held_out || (evaluation.every_steps == 0 && evaluation.tokens == 0)) return {};
  const auto [key, value] = evaluation.every_steps > 0 ? std::pair("every_steps", evaluation.every_steps)
                                                       : std::pair("tokens", evaluation.tokens);
  return fmt::format(
      "evaluation.{} = {}: there is no held-out data, so no loss of it is measured; give data.validation", key, value);
}

void check_schedule(const Recipe& recipe, Rules& rules) {
  for (const PhaseSpec& phase : recipe.phases) {
    if (most_steps(recipe, phase, 1) <= 0) return;  // said elsewhere
    check_ramp(recipe, phase, rules);
  }
  const std::string mistake = unfinished_warmup(
      recipe, [&](std::size_t phase, double share) { return most_steps(recipe, recipe.phases[phase], share); });
  rules.unless(mistake.empty(), {"schedule.warmup_steps"}, mistake);
}

void check_phases(const Recipe& recipe, Rules& rules) {
  rules.unless(!recipe.phases.empty(), {"phase"}, "there is no phase: add a section [phase.NAME]");
  if (!recipe.phases.empty() && !recipe.phases.front().from.empty()) {
    const std::string key = fmt::format("phase.{}.from", recipe.phases.front().name);
    rules.unless(recipe.model.from.empty(), {key, "model.from"},
                 fmt::format("{} and model.from both name what the run begins with: leave one out", key));
  }
  for (const PhaseSpec& phase : recipe.phases) {
    const std::string section = "phase." + phase.name;
    const std::int64_t positions = recipe.model.max_positions;
    rules.unless(phase.sequence > 0, {section + ".sequence"},
                 fmt::format("{}.sequence is missing: tokens per sequence", section));
    rules.unless(
        positions == 0 || phase.sequence <= positions, {section + ".sequence", "model.max_positions"},
        fmt::format("{}.sequence = {} is longer than model.max_positions = {}", section, phase.sequence, positions));
    check_batch(recipe, phase, section, rules);
    check_phase_length(recipe, phase, section, rules);
    check_objective(recipe, phase, section, rules);
    check_weights(recipe, phase, section, rules);
    check_mix(recipe, phase, section, rules);
  }
}

}  // namespace shoestring
