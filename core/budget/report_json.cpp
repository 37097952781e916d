// The report as a versioned JSON document, described by report.schema.json. Keys are only ever added within a version.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/budget/report.h"
#include "core/budget/run_summary.h"

namespace shoestring {
namespace {

using json = nlohmann::ordered_json;

json hours_by_category(const CategorySeconds& seconds) {
  json object = json::object();
  for (int i = 0; i < kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    object[std::string(name(category))] = seconds[category] / 3600;
  }
  return object;
}

json category_shares(const Report& report) {
  json object = json::object();
  const double total = report.charged.total();
  for (int i = 0; i < kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    object[std::string(name(category))] = total > 0 ? report.charged[category] / total : 0;
  }
  return object;
}

json known(double value) { return value > 0 && std::isfinite(value) ? json(value) : json(nullptr); }

/// Wall-clock hours since the first attempt began.
double begin_hours(const Report& report, const AttemptHistory& attempt) {
  return std::max(0.0, attempt.begin_unix_seconds - report.attempts.front().begin_unix_seconds) / 3600;
}

json attempts(const Report& report) {
  json list = json::array();
  for (const AttemptHistory& attempt : report.attempts) {
    list.push_back({{"attempt", attempt.attempt},
                    {"ranks", attempt.start.ranks},
                    {"host", attempt.start.host},
                    {"begin_unix_seconds", attempt.begin_unix_seconds},
                    {"build", attempt.start.build},
                    {"recipe", attempt.start.recipe_hash},
                    {"variants", attempt.start.variants},
                    {"begin_hours", begin_hours(report, attempt)},
                    {"gpu_hours", attempt.charged.total() / 3600},
                    {"lost_gpu_hours", attempt.charged[Category::lost] / 3600},
                    {"estimated_tail_gpu_hours", attempt.tail_gpu_seconds / 3600},
                    {"categories", hours_by_category(attempt.charged)},
                    {"from_step", attempt.start.from_step},
                    {"last_step", attempt.last().step},
                    {"kept_step", attempt.kept_step},
                    {"checkpoints", attempt.checkpoints.size()},
                    {"end", attempt.reason},
                    {"exit_code", attempt.state == AttemptState::ended ? json(attempt.exit_code) : json(nullptr)},
                    {"text", attempt.text},
                    {"notes", attempt.notes}});
  }
  return list;
}

json phases(const Report& report) {
  json list = json::array();
  for (const PhaseCost& phase : report.phases) {
    list.push_back({{"name", phase.name},
                    {"gpu_hours", phase.gpu_hours},
                    {"usd", known(phase.usd)},
                    {"tokens", phase.tokens},
                    {"steps", phase.steps}});
  }
  return list;
}

json utilisation(const Report& report) {
  json object = {{"formula", "FLOPs done in the format / (GPU-seconds charged x FLOP/s of the device)"},
                 {"ideal_share", known(report.ideal_share)}};
  for (const FormatUse& use : report.formats) {
    object["formats"][std::string(name(use.format))] = {
        {"flops", use.flops}, {"of_peak", known(use.of_peak)}, {"of_achievable", known(use.of_achievable)}};
  }
  return object;
}

json budget(const Report& report) {
  json object = {{"cap_gpu_hours", known(report.cap_gpu_hours)},
                 {"cap_from", report.cap_from},
                 {"cap_usd", known(report.cap_usd())},
                 {"cap_kwh", known(report.cap_kwh())},
                 {"spent_gpu_hours", report.spent.gpu_hours},
                 {"spent_share", known(report.spent_share())},
                 {"spent_usd", known(report.spent.usd)},
                 {"spent_kwh", known(report.spent.kwh)},
                 {"lost_gpu_hours", report.lost_gpu_hours()},
                 {"tokens_per_gpu_hour", known(report.tokens_per_gpu_hour())},
                 {"usd_per_billion_tokens", known(report.usd_per_billion_tokens())}};
  if (report.price) {
    object["price"] = {{"usd_per_gpu_hour", report.price->usd_per_gpu_hour},
                       {"source", report.price->source},
                       {"date", report.price->date},
                       {"other_prices", report.other_prices}};
  }
  return object;
}

json energy(const Report& report) {
  return {{"kwh", known(report.spent.kwh)},
          {"kind", report.spent.kwh > 0 ? json("modelled") : json(nullptr)},
          {"watts_per_device", known(report.watts)}};
}

json evaluations(const Report& report) {
  json list = json::array();
  for (const EvaluatedAt& at : report.evaluations) {
    list.push_back({{"step", at.result.step},
                    {"gpu_hours", at.gpu_hours},
                    {"usd", known(report.usd_of(at.gpu_hours))},
                    {"loss", known(at.result.loss)},
                    {"bits_per_byte", known(at.result.bits_per_byte)}});
  }
  return list;
}

json suites(const Report& report) {
  json list = json::array();
  for (const SuiteResult& result : report.suites) {
    json scores = json::array();
    for (const SuiteScore& score : result.scores) {
      scores.push_back({{"task", score.task},
                        {"metric", score.metric},
                        {"requests", score.requests},
                        {"value", std::isfinite(score.value) ? json(score.value) : json(nullptr)},
                        {"error", score.error < 0 || !std::isfinite(score.error) ? json(nullptr) : json(score.error)}});
    }
    list.push_back({{"phase", result.phase},
                    {"step", result.step},
                    {"requests", result.requests},
                    {"all_requests", result.all_requests},
                    {"took_seconds", result.took_seconds},
                    {"scores", std::move(scores)}});
  }
  return list;
}

json burn_down(const Report& report) {
  json list = json::array();
  for (const SpentAt& at : report.burn_down) {
    json point = {{"attempt", at.attempt}, {"hours", at.hours}, {"spent_gpu_hours", at.gpu_hours}};
    point["left_gpu_hours"] =
        report.cap_gpu_hours > 0 ? json(std::max(0.0, report.cap_gpu_hours - at.gpu_hours)) : json(nullptr);
    list.push_back(std::move(point));
  }
  return list;
}

json curve(const Report& report) {
  json points = json::array();
  for (const CurvePoint& at : report.curve.points) {
    points.push_back({{"step", at.step},
                      {"tokens", at.tokens},
                      {"gpu_hours", at.gpu_hours},
                      {"usd", known(at.usd)},
                      {"loss", at.loss},
                      {"learning_rate", at.learning_rate},
                      {"gradient_norm", at.gradient_norm},
                      {"tokens_per_second", at.tokens_per_second},
                      {"expert_overload", known(at.expert_overload)},
                      {"quantisation", at.shares}});
  }
  return {{"sampled", report.curve.sampled}, {"points", std::move(points)}};
}

json recipe(const Report& report) {
  json changed = json::array();
  for (const ChangedKey& key : report.changed_keys) {
    changed.push_back({{"key", key.key}, {"value", key.value}, {"default", key.otherwise}});
  }
  return {{"text", report.recipe_text}, {"changed", std::move(changed)}};
}

json foretold(const Report& report) {
  json list = json::array();
  for (const Foretold& line : report.foretold) {
    list.push_back(
        {{"what", line.what}, {"predicted", line.predicted}, {"actual", line.actual}, {"error", line.error()}});
  }
  return list;
}

json pipeline(const Report& report) {
  if (!report.pipeline) return nullptr;
  const PipelineUse& use = *report.pipeline;
  return {{"schedule", use.schedule},
          {"ranks", use.ranks},
          {"stages", use.stages},
          {"microbatches", use.microbatches},
          {"steps", use.steps},
          {"bubble", use.bubble},
          {"simulated_bubble", use.simulated_bubble},
          {"imbalance", use.imbalance},
          {"stage_seconds", use.stage_seconds}};
}

json data(const Report& report) {
  if (!report.data) return nullptr;
  const DataReading& read = *report.data;
  const auto rate = [](std::int64_t bytes, double seconds) {
    return json{{"bytes", bytes},
                {"seconds", seconds},
                {"bytes_per_second", seconds > 0 ? known(static_cast<double>(bytes) / seconds) : json(nullptr)}};
  };
  json late = json::array();
  for (const LateShard& shard : read.late) late.push_back({{"path", shard.path}, {"waited_seconds", shard.seconds}});
  return {{"waited_seconds", read.wait_seconds},
          {"storage", rate(read.storage_bytes, read.storage_seconds)},
          {"copies", rate(read.copy_bytes, read.copy_seconds)},
          {"staged", rate(read.staged_bytes, read.staged_seconds)},
          {"late", std::move(late)}};
}

json comparison(const Report& report) {
  json list = json::array();
  for (const RunSummary& run : report.compared) list.push_back(json::parse(summary_json(run)));
  return list;
}

json validation(const Report& report) {
  if (!report.validation) return {{"loss", nullptr}, {"bits_per_byte", nullptr}};
  return {{"loss", known(report.validation->loss)},    {"bits_per_byte", known(report.validation->bits_per_byte)},
          {"step", report.validation->step},           {"tokens", report.validation->tokens},
          {"sequences", report.validation->sequences}, {"all_sequences", report.validation->all_sequences}};
}

/// The two that plans have had from the first; all of them are in "foretold".
json predicted(const Report& report) {
  json object = nullptr;
  for (const Foretold& line : report.foretold) {
    const std::string key = line.what == "GPU-hours" ? "gpu_hours" : line.what;
    if (key != "gpu_hours" && key != "tokens") continue;
    object[key] = line.predicted;
    object[key + "_error"] = line.error();
  }
  return object;
}

}  // namespace

std::string report_json(const Report& report) {
  const json document = {
      {"schema", kReportSchema},
      {"run", {{"name", report.run}, {"project", report.project}, {"state", report.state}, {"text", report.text}}},
      {"budget", budget(report)},
      {"energy", energy(report)},
      {"categories", hours_by_category(report.charged)},
      {"category_shares", category_shares(report)},
      {"phases", phases(report)},
      {"attempts", attempts(report)},
      {"tokens", report.tokens},
      {"learned_tokens", report.learned_tokens > 0 ? json(report.learned_tokens) : json(nullptr)},
      {"steps", report.steps},
      {"clipped_steps", report.clipped},
      {"skipped_steps", report.skipped},
      {"returns_to_checkpoints", report.returns},
      {"train_loss", known(report.train_loss)},
      {"validation", validation(report)},
      {"evaluations", evaluations(report)},
      {"suites", suites(report)},
      {"utilisation", utilisation(report)},
      {"pipeline", pipeline(report)},
      {"data", data(report)},
      {"expert_max_violations", report.max_violations},
      {"predicted", predicted(report)},
      {"foretold", foretold(report)},
      {"planned_otherwise", report.planned_otherwise},
      {"burn_down", burn_down(report)},
      {"curve", curve(report)},
      {"model",
       {{"parameters", report.parameters},
        {"active_parameters", report.active_parameters},
        {"flops_per_token", report.flops_per_token}}},
      {"hardware", report.hardware},
      {"recipe", recipe(report)},
      {"comparison", comparison(report)},
      {"damaged_lines", report.damaged_lines}};
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace shoestring
