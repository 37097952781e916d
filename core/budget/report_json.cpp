// The report as a versioned JSON document (schema shoestring.report/1). Keys are only ever added within a version.
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/budget/report.h"

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

json known(double value) { return value > 0 && std::isfinite(value) ? json(value) : json(nullptr); }

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
                    {"gpu_hours", attempt.charged.total() / 3600},
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
                    {"usd", report.price ? json(report.price->usd(phase.gpu_hours)) : json(nullptr)},
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
                 {"spent_gpu_hours", report.spent_gpu_hours},
                 {"spent_usd", report.price ? json(report.price->usd(report.spent_gpu_hours)) : json(nullptr)},
                 {"spent_kwh", known(report.kwh)},
                 {"lost_gpu_hours", report.charged[Category::lost] / 3600}};
  if (report.price) {
    object["price"] = {{"usd_per_gpu_hour", report.price->usd_per_gpu_hour},
                       {"source", report.price->source},
                       {"date", report.price->date}};
  }
  return object;
}

json validation(const Report& report) {
  if (!report.validation) return {{"loss", nullptr}, {"bits_per_byte", nullptr}};
  return {{"loss", known(report.validation->loss)},    {"bits_per_byte", known(report.validation->bits_per_byte)},
          {"step", report.validation->step},           {"tokens", report.validation->tokens},
          {"sequences", report.validation->sequences}, {"all_sequences", report.validation->all_sequences}};
}

json predicted(const Report& report) {
  if (!report.predicted) return nullptr;
  const auto error = [](double foretold, double actual) {
    return foretold > 0 && actual > 0 ? json((foretold - actual) / actual) : json(nullptr);
  };
  return {{"gpu_hours", known(report.predicted->gpu_hours)},
          {"gpu_hours_error", error(report.predicted->gpu_hours, report.spent_gpu_hours)},
          {"tokens", known(report.predicted->tokens)},
          {"tokens_error", error(report.predicted->tokens, static_cast<double>(report.tokens))}};
}

}  // namespace

std::string report_json(const Report& report) {
  const json document = {{"schema", kReportSchema},
                         {"run", {{"name", report.run}, {"state", report.state}, {"text", report.text}}},
                         {"budget", budget(report)},
                         {"categories", hours_by_category(report.charged)},
                         {"phases", phases(report)},
                         {"attempts", attempts(report)},
                         {"tokens", report.tokens},
                         {"steps", report.steps},
                         {"clipped_steps", report.clipped},
                         {"skipped_steps", report.skipped},
                         {"returns_to_checkpoints", report.returns},
                         {"train_loss", known(report.train_loss)},
                         {"validation", validation(report)},
                         {"utilisation", utilisation(report)},
                         {"predicted", predicted(report)},
                         {"model",
                          {{"parameters", report.parameters},
                           {"active_parameters", report.active_parameters},
                           {"flops_per_token", report.flops_per_token}}},
                         {"hardware", report.hardware},
                         {"damaged_lines", report.damaged_lines}};
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace shoestring
