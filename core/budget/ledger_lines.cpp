#include "core/budget/ledger_lines.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace shoestring::ledger_lines {
namespace {

using nlohmann::json;

constexpr double kMostSeconds = 1e12;  // 30,000 years of one device: beyond is damage

json finite(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

/// A number that is null when unlimited.
double limit(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? std::numeric_limits<double>::infinity() : found->get<double>();
}

double number(const json& object, const char* key, double otherwise = 0) { return object.value(key, otherwise); }

double bounded(double value) {
  if (!(value >= 0 && value <= kMostSeconds)) throw std::out_of_range("seconds out of range");
  return value;
}

std::int64_t whole(const json& object, const char* key) {
  const std::int64_t value = object.value(key, std::int64_t{0});
  if (value < 0) throw std::out_of_range("negative count");
  return value;
}

json write(const PerFormat& formats) {
  json object = json::object();
  for (int i = 0; i < kRateFormats; ++i) {
    const auto format = static_cast<RateFormat>(i);
    if (formats[format] > 0) object[std::string(name(format))] = formats[format];
  }
  return object;
}

PerFormat read_formats(const json& object, const char* key) {
  PerFormat formats;
  const json part = object.value(key, json::object());
  for (int i = 0; i < kRateFormats; ++i) {
    const auto format = static_cast<RateFormat>(i);
    formats[format] = part.value(std::string(name(format)), 0.0);
  }
  return formats;
}

}  // namespace

json write(const CategorySeconds& seconds) {
  json object = json::object();
  for (int i = 0; i < kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    if (seconds[category] != 0) object[std::string(name(category))] = seconds[category];
  }
  return object;
}

json write(const AttemptStart& start) {
  json object = {{"run", start.run},
                 {"ranks", start.ranks},
                 {"host", start.host},
                 {"pid", start.pid},
                 {"recipe", start.recipe_hash},
                 {"build", start.build},
                 {"variants", start.variants},
                 {"from_step", start.from_step},
                 {"from_tokens", start.from_tokens},
                 {"cap_gpu_hours", finite(start.cap.gpu_hours)},
                 {"cap_from", start.cap.from},
                 {"job_hours", finite(start.cap.job_hours)},
                 {"parameters", start.parameters},
                 {"active_parameters", start.active_parameters},
                 {"flops_per_token", start.flops_per_token},
                 {"hardware",
                  {{"name", start.hardware.name},
                   {"watts", start.hardware.watts},
                   {"peak", write(start.hardware.peak_flops)},
                   {"achievable", write(start.hardware.achievable_flops)},
                   {"achievable_source", start.hardware.achievable_source}}}};
  if (start.price) {
    object["price"] = {{"usd_per_gpu_hour", start.price->usd_per_gpu_hour},
                       {"source", start.price->source},
                       {"date", start.price->date}};
  }
  return object;
}

AttemptStart read_start(const json& object) {
  AttemptStart start;
  start.run = object.value("run", "");
  start.ranks = object.at("ranks").get<int>();
  if (start.ranks < 1) throw std::out_of_range("no ranks");
  start.host = object.value("host", "");
  start.pid = object.value("pid", std::int64_t{0});
  start.recipe_hash = object.value("recipe", "");
  start.build = object.value("build", "");
  start.variants = object.value("variants", std::map<std::string, std::string>{});
  start.from_step = std::max<std::int64_t>(-1, object.value("from_step", std::int64_t{0}));
  start.from_tokens = whole(object, "from_tokens");
  start.cap.gpu_hours = limit(object, "cap_gpu_hours");
  start.cap.from = object.value("cap_from", "");
  start.cap.job_hours = limit(object, "job_hours");
  start.parameters = whole(object, "parameters");
  start.active_parameters = whole(object, "active_parameters");
  start.flops_per_token = number(object, "flops_per_token");
  const json hardware = object.value("hardware", json::object());
  start.hardware.name = hardware.value("name", "");
  start.hardware.watts = number(hardware, "watts");
  start.hardware.peak_flops = read_formats(hardware, "peak");
  start.hardware.achievable_flops = read_formats(hardware, "achievable");
  start.hardware.achievable_source = hardware.value("achievable_source", "");
  if (const auto price = object.find("price"); price != object.end()) {
    start.price =
        Price{price->at("usd_per_gpu_hour").get<double>(), price->value("source", ""), price->value("date", "")};
  }
  return start;
}

json write(const AttemptProgress& progress) {
  json object = {{"step", progress.step},
                 {"tokens", progress.tokens},
                 {"phase", progress.phase},
                 {"seconds", write(progress.seconds)},
                 {"flops", write(progress.flops)}};
  if (progress.loss != 0 && std::isfinite(progress.loss)) object["loss"] = progress.loss;
  return object;
}

AttemptProgress read_progress(const json& object) {
  AttemptProgress progress;
  progress.step = whole(object, "step");
  progress.tokens = whole(object, "tokens");
  progress.phase = object.value("phase", "");
  const json& seconds = object.at("seconds");
  for (int i = 0; i < kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    progress.seconds[category] = bounded(seconds.value(std::string(name(category)), 0.0));
  }
  progress.flops = read_formats(object, "flops");
  progress.loss = number(object, "loss");
  return progress;
}

json write(const CheckpointCommit& commit) {
  return {{"step", commit.step},
          {"tokens", commit.tokens},
          {"name", commit.name},
          {"bytes", commit.bytes},
          {"took_seconds", commit.took_seconds}};
}

CheckpointCommit read_commit(const json& object) {
  return {whole(object, "step"), whole(object, "tokens"), object.value("name", ""), whole(object, "bytes"),
          bounded(number(object, "took_seconds"))};
}

json write(const EvaluationResult& result) {
  return {{"step", result.step},
          {"tokens", result.tokens},
          {"loss", finite(result.loss)},
          {"bits_per_byte", finite(result.bits_per_byte)},
          {"took_seconds", result.took_seconds},
          {"sequences", result.sequences},
          {"all_sequences", result.all_sequences}};
}

EvaluationResult read_evaluation(const json& object) {
  return {whole(object, "step"),
          whole(object, "tokens"),
          limit(object, "loss"),
          limit(object, "bits_per_byte"),
          bounded(number(object, "took_seconds")),
          object.contains("sequences") ? whole(object, "sequences") : 0,
          object.contains("all_sequences") ? whole(object, "all_sequences") : 0};
}

json write(const HorizonDecision& decision) {
  return {{"step", decision.step},
          {"progress", decision.progress},
          {"end_step", decision.end_step},
          {"end_progress", decision.end_progress},
          {"phase_index", decision.phase}};
}

HorizonDecision read_decision(const json& object) {
  HorizonDecision decision{whole(object, "step"), object.at("progress").get<double>(), whole(object, "end_step"),
                           object.at("end_progress").get<double>(), object.at("phase_index").get<int>()};
  if (decision.end_step <= decision.step) throw std::out_of_range("a horizon that ends before it begins");
  return decision;
}

}  // namespace shoestring::ledger_lines
