#include "core/recipe/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "core/budget/warning.h"
#include "core/model/config.h"
#include "core/model/families/family.h"
#include "core/recipe/keys.h"
#include "core/recipe/names.h"
#include "core/recipe/rules.h"
#include "core/recipe/scan.h"
#include "core/recipe/units.h"
#include "kernels/base/check.h"
#include "kernels/variant_list.h"

namespace shoestring {
namespace {

bool is_date(const std::string& text) {
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  for (const std::size_t place : {0u, 1u, 2u, 3u, 5u, 6u, 8u, 9u}) {
    if (std::isdigit(static_cast<unsigned char>(text[place])) == 0) return false;
  }
  const std::chrono::year_month_day date{std::chrono::year(std::stoi(text.substr(0, 4))),
                                         std::chrono::month(static_cast<unsigned>(std::stoi(text.substr(5, 2)))),
                                         std::chrono::day(static_cast<unsigned>(std::stoi(text.substr(8, 2))))};
  return date.ok();
}

bool is_run_name(const std::string& text) {
  if (text.empty() || text.size() > 128 || text.front() == '.') return false;
  return std::all_of(text.begin(), text.end(), [](unsigned char letter) {
    return std::isalnum(letter) != 0 || letter == '_' || letter == '-' || letter == '.';
  });
}

void check_run(const Recipe& recipe, Rules& rules) {
  rules.unless(!recipe.run.name.empty(), {"run.name"}, "run.name is missing");
  rules.unless(recipe.run.name.empty() || is_run_name(recipe.run.name), {"run.name"},
               fmt::format("run.name = {} must be letters, digits, '_', '-' and '.', and not begin with '.'",
                           quote_text(recipe.run.name)));
}

void check_budget(const BudgetSpec& budget, Rules& rules) {
  const bool price = budget.usd_per_gpu_hour > 0;
  rules.unless(budget.gpu_hours > 0 || budget.usd > 0 || budget.kwh > 0,
               {"budget.gpu_hours", "budget.usd", "budget.kwh"},
               "no cap: give budget.gpu_hours, budget.usd or budget.kwh");
  rules.unless(!price || !budget.price_source.empty(), {"budget.usd_per_gpu_hour", "budget.price_source"},
               "a price needs budget.price_source: who says so");
  rules.unless(!price || !budget.price_date.empty(), {"budget.usd_per_gpu_hour", "budget.price_date"},
               "a price needs budget.price_date: when, YYYY-MM-DD");
  rules.unless(budget.price_date.empty() || is_date(budget.price_date), {"budget.price_date"},
               fmt::format("budget.price_date = {} is no date of a calendar in the form YYYY-MM-DD",
                           quote_text(budget.price_date)));
  rules.unless(price || !rules.given("budget.price_source"), {"budget.price_source", "budget.usd_per_gpu_hour"},
               "budget.price_source stands without a price: give budget.usd_per_gpu_hour");
  rules.unless(price || budget.usd <= 0, {"budget.usd", "budget.usd_per_gpu_hour"},
               "a cap in money needs a price: give budget.usd_per_gpu_hour");
  rules.unless(budget.kwh <= 0 || !budget.hardware.empty(), {"budget.kwh", "budget.hardware"},
               "a cap in energy needs the device's power: give budget.hardware");
  const bool plain = budget.hardware.find('/') == std::string::npos && !budget.hardware.starts_with('.');
  rules.unless(plain, {"budget.hardware"},
               fmt::format("budget.hardware = {} is a name, not a path: recipes/hardware/NAME.hardware",
                           quote_text(budget.hardware)));
  try {
    warn_shares(budget);
  } catch (const Error& error) {
    rules.unless(false, {"budget.warn_at"}, error.what());
  }
}

std::string did_you_mean(std::string_view word, const std::vector<std::string_view>& words) {
  const std::string_view near = nearest_word(word, words);
  return near.empty() ? "" : fmt::format("; did you mean '{}'?", near);
}

/// What is wrong with a pin, or nothing. A pin that names nothing would be ignored, or end the run in its first step.
std::string pin_mistake(std::string_view pin) {
  const auto equals = pin.find('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == pin.size()) {
    return fmt::format("kernels.pin holds {}: write op=variant", quote_text(pin));
  }
  const std::string_view op = pin.substr(0, equals);
  const std::string_view variant = pin.substr(equals + 1);
  std::vector<std::string_view> ops;
  for (const OpVariants& known : op_variants()) {
    ops.push_back(known.op);
    if (known.op != op) continue;
    const auto& rows = known.variants;
    if (std::find(rows.begin(), rows.end(), variant) != rows.end()) return {};
    return fmt::format("kernels.pin: {} has no variant {} in this build, only {}{}", op, quote_name(variant),
                       fmt::join(rows, ", "), did_you_mean(variant, rows));
  }
  return fmt::format("kernels.pin: there is no op {}{}", quote_name(op), did_you_mean(op, ops));
}

/// Whether a sound pin takes the reference of an op that has other rows.
bool pins_reference(std::string_view pin) {
  const auto equals = pin.find('=');
  const auto& ops = op_variants();
  const auto known =
      std::find_if(ops.begin(), ops.end(), [&](const auto& op) { return op.op == pin.substr(0, equals); });
  return pin.substr(equals + 1) == "reference" && known != ops.end() && known->variants.size() > 1;
}

void check_kernels(const KernelsSpec& kernels, Rules& rules) {
  std::map<std::string_view, std::string_view> pinned;
  for (const std::string& pin : kernels.pin) {
    const std::string mistake = pin_mistake(pin);
    rules.unless(mistake.empty(), {"kernels.pin"}, mistake);
    if (!mistake.empty()) continue;
    const auto equals = pin.find('=');
    const auto [first, fresh] = pinned.emplace(std::string_view(pin).substr(0, equals), pin);
    rules.unless(fresh, {"kernels.pin"},
                 fmt::format("kernels.pin has {} and {}: an op has one variant; keep one", first->second, pin));
    rules.unless(kernels.allow_reference != AllowReference::no || !pins_reference(pin),
                 {"kernels.pin", "kernels.allow_reference"},
                 fmt::format("kernels.pin = {} takes what kernels.allow_reference = no refuses: leave one out", pin));
  }
}

/// Model keys that mean nothing for an architecture are contradictions when a file gives them another value than the
/// default (canonical text gives them all).
void check_foreign_keys(const Recipe& recipe, Rules& rules) {
  const ModelSpec& model = recipe.model;
  const Family& family = family_of(model.architecture);
  const auto refuse = [&](bool allowed, std::initializer_list<const char*> names, const char* what) {
    for (const char* name : names) {
      const std::string key = fmt::format("model.{}", name);
      const Key* row = find_key("model", name);
      const bool set = rules.given(key) && row->print(recipe, 0) != default_text(*row);
      rules.unless(allowed || !set, {key, "model.architecture"},
                   fmt::format("{} means nothing for {}: {}", key, shoestring::name(model.architecture), what));
    }
  };
  refuse(family.experts,
         {"experts", "experts_per_token", "shared_experts", "expert_feed_forward", "dense_layers", "expert_groups",
          "expert_topk_groups", "router", "normalize_weights", "routed_scale", "bias_speed", "balance_loss"},
         "it has no experts");
  refuse(family.latent_attention, {"q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"},
         "it has no latent attention");
  refuse(family.further_tokens, {"mtp_layers", "mtp_weight"}, "it predicts one token at a time");
}

void check_model_section(const Recipe& recipe, Rules& rules) {
  check_foreign_keys(recipe, rules);
  for (const ConfigProblem& problem : check_model(recipe.model, 0)) {
    if (rules.blamed(problem.key)) continue;  // said by check_foreign_keys
    rules.unless(false, {problem.key, "model.architecture"},
                 rules.given(problem.key) ? fmt::format("{} {}", problem.key, problem.text)
                                          : fmt::format("{} is not given: {}", problem.key, problem.text));
  }
}

void check_precision(const Recipe& recipe, Rules& rules) {
  rules.unless(
      recipe.precision.policy != PrecisionPolicy::fp64 || recipe.kernels.allow_reference == AllowReference::yes,
      {"precision.policy", "kernels.allow_reference"},
      "precision.policy = fp64 is for tests: only reference kernels compute in it, so it needs "
      "kernels.allow_reference = yes");
  const bool packs = recipe.precision.dispatch == DispatchFormat::fp8;
  rules.unless(!packs || recipe.precision.policy != PrecisionPolicy::fp64, {"precision.dispatch", "precision.policy"},
               "precision.dispatch = fp8 rounds what precision.policy = fp64 keeps exact");
  rules.unless(!packs || recipe.model.experts > 0, {"precision.dispatch", "model.experts"},
               "precision.dispatch = fp8 is how tokens travel to experts, and the model has none");
}

/// The projections of a model, as on disk.
std::vector<std::string_view> projections_of(const ModelSpec& model) {
  std::vector<std::string_view> all = {"q_proj", "k_proj", "v_proj"};
  if (family_of(model.architecture).latent_attention) {
    all = {"q_proj", "kv_a_proj_with_mqa", "kv_b_proj"};
    if (model.q_lora_rank > 0) all = {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"};
  }
  for (const char* name : {"o_proj", "gate_proj", "up_proj", "down_proj"}) all.emplace_back(name);
  return all;
}

/// What adapters are not offered for is refused.
void check_lora(const Recipe& recipe, Rules& rules) {
  const LoraSpec& lora = recipe.lora;
  const std::vector<std::string_view> known = projections_of(recipe.model);
  if (lora.targets != LoraSpec{}.targets) {
    for (const std::string& target : lora.targets) {
      rules.unless(std::find(known.begin(), known.end(), target) != known.end(), {"lora.targets"},
                   fmt::format("lora.targets: there is no projection {}, only {}{}", quote_name(target),
                               fmt::join(known, ", "), did_you_mean(target, known)));
    }
  }
  if (lora.rank == 0) return;
  rules.unless(!lora.targets.empty(), {"lora.targets"}, "lora.targets is empty: nothing would be trained");
  rules.unless(recipe.model.mtp_layers == 0, {"lora.rank", "model.mtp_layers"},
               "lora.rank: multi-token prediction has no adapters and would stay as it is, a cost for nothing; set "
               "model.mtp_layers = 0");
  const bool begins = !recipe.model.from.empty() || (!recipe.phases.empty() && !recipe.phases.front().from.empty());
  rules.unless(begins || (!recipe.phases.empty() && !recipe.phases.front().lora), {"lora.rank", "model.from"},
               "lora.rank needs model.from, or a first phase with lora = no: adapters of new weights would leave these "
               "as they were drawn");
  std::int64_t most = 0;
  const ModelSpec& model = recipe.model;
  for (const std::int64_t side :
       {model.hidden, model.feed_forward, model.expert_feed_forward, model.kv_lora_rank, model.q_lora_rank}) {
    if (side > 0) most = most == 0 ? side : std::min(most, side);
  }
  rules.unless(
      most == 0 || lora.rank <= most, {"lora.rank"},
      fmt::format("lora.rank = {} is no low rank: the narrowest side of a projection has {}", lora.rank, most));
}

/// Layers of each stage are whole numbers that add up to the model's; the last may hold the loss alone.
void check_stages(const Recipe& recipe, Rules& rules) {
  const std::vector<std::string>& stages = recipe.parallel.stages;
  if (stages.empty() || stages_are_measured(recipe.parallel)) return;
  std::int64_t sum = 0;
  for (const std::string& text : stages) {
    const WholeQuantity layers = parse_whole(text, Unit::none);
    const std::int64_t least = &text == &stages.back() ? 0 : 1;
    const bool sound = layers.mistake.empty() && layers.value >= least && layers.value <= recipe.model.layers;
    rules.unless(sound, {"parallel.stages"},
                 fmt::format("parallel.stages: '{}' is no number of layers of a model of {}; only the last stage may "
                             "have none, and the one word it may be is {}",
                             text, recipe.model.layers, kMeasuredStages));
    if (!sound) return;
    sum += layers.value;
  }
  rules.unless(sum == recipe.model.layers, {"parallel.stages", "model.layers"},
               fmt::format("parallel.stages have {} layers together, the model has {}", sum, recipe.model.layers));
}

void check_parallel(const Recipe& recipe, Rules& rules) {
  const ParallelSpec& parallel = recipe.parallel;
  check_stages(recipe, rules);
  if (parallel.expert == 1) return;
  const std::int64_t experts = recipe.model.experts;
  rules.unless(experts > 0, {"parallel.expert", "model.experts"},
               fmt::format("parallel.expert = {} shares out experts, and the model has none", parallel.expert));
  rules.unless(experts % parallel.expert == 0, {"parallel.expert", "model.experts"},
               fmt::format("parallel.expert = {} does not divide model.experts = {}", parallel.expert, experts));
  rules.unless(parallel.data % parallel.expert == 0, {"parallel.expert", "parallel.data"},
               fmt::format("parallel.expert = {} does not divide parallel.data = {}", parallel.expert, parallel.data));
}

void check_data(const Recipe& recipe, Rules& rules) {
  const bool own = !recipe.phases.empty() && std::all_of(recipe.phases.begin(), recipe.phases.end(),
                                                         [](const PhaseSpec& phase) { return !phase.train.empty(); });
  rules.unless(own || !recipe.data.train.empty(), {"data.train"}, "data.train is missing: where are the token shards?");
}

void check_guard(const Recipe& recipe, Rules& rules) {
  rules.unless(recipe.guard.on_repeat != OnRepeat::go_back || recipe.checkpoint.every_steps > 0 ||
                   recipe.checkpoint.every_minutes > 0,
               {"guard.on_repeat", "checkpoint.every_steps", "checkpoint.every_minutes"},
               "guard.on_repeat = go_back needs checkpoints to go back to: set checkpoint.every_steps or "
               "checkpoint.every_minutes");
}

}  // namespace

std::vector<Mistake> validate(const Recipe& recipe, const Origins& origins, const std::vector<Mistake>& wrong,
                              bool schedule) {
  Rules rules(origins, wrong);
  check_run(recipe, rules);
  check_budget(recipe.budget, rules);
  check_kernels(recipe.kernels, rules);
  check_model_section(recipe, rules);
  check_precision(recipe, rules);
  check_lora(recipe, rules);
  check_parallel(recipe, rules);
  check_data(recipe, rules);
  if (schedule) check_schedule(recipe, rules);
  check_phases(recipe, rules);
  check_guard(recipe, rules);
  if (schedule) check_unread_keys(recipe, rules);
  return rules.take();
}

}  // namespace shoestring
