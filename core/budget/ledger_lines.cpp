#include "core/budget/ledger_lines.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace shoestring::ledger_lines {
namespace {

constexpr double kMostSeconds = 1e12;                       // 30,000 years of one device: beyond is damage
constexpr std::int64_t kMostCount = std::int64_t{1} << 53;  // steps, tokens, parameters, bytes
constexpr std::int64_t kMostRanks = 1 << 24;
constexpr std::size_t kLongestLabel = 256;      // a name, a date, a hash
constexpr std::size_t kLongestSentence = 1024;  // where a figure comes from
constexpr std::size_t kMostVariants = 1024;
constexpr std::int64_t kMostPhase = 1 << 20;
constexpr std::size_t kMostScores = 4096;

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

/// A number that is null when unlimited, or when there was none.
double limit(const Json& object, std::string_view key) {
  const Json* found = object.find(key);
  return found == nullptr || found->is_null() ? std::numeric_limits<double>::infinity() : found->number();
}

double number(const Json& object, std::string_view key) { return object.number_or(key, 0); }

double bounded(double value) {
  if (!(value >= 0 && value <= kMostSeconds)) fail(ExitCode::bad_data, "{} seconds", value);
  return value;
}

std::int64_t count(const Json& object, std::string_view key) {
  const Json* found = object.find(key);
  return found == nullptr ? 0 : found->count(kMostCount);
}

std::string text(const Json& object, std::string_view key, std::size_t longest = kLongestLabel) {
  return object.text_or(key, "").substr(0, longest);
}

Json write(const PerFormat& formats) {
  Json object = Json::object();
  for (int i = 0; i < kRateFormats; ++i) {
    const auto format = static_cast<RateFormat>(i);
    if (formats[format] > 0) object.add(std::string(name(format)), formats[format]);
  }
  return object;
}

PerFormat read_formats(const Json& object, std::string_view key) {
  PerFormat formats;
  const Json* part = object.find(key);
  for (int i = 0; part != nullptr && i < kRateFormats; ++i) {
    const auto format = static_cast<RateFormat>(i);
    formats[format] = part->number_or(name(format), 0);
  }
  return formats;
}

Hardware read_hardware_part(const Json& object) {
  Hardware hardware;
  hardware.name = text(object, "name");
  hardware.watts = number(object, "watts");
  hardware.peak_flops = read_formats(object, "peak");
  hardware.achievable_flops = read_formats(object, "achievable");
  hardware.achievable_source = text(object, "achievable_source", kLongestSentence);
  return hardware;
}

}  // namespace

Json write(const CategorySeconds& seconds) {
  Json object = Json::object();
  for (int i = 0; i < kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    if (seconds[category] != 0) object.add(std::string(name(category)), seconds[category]);
  }
  return object;
}

Json write(const AttemptStart& start) {
  Json object = Json::object({{"run", start.run},
                              {"project", start.project},
                              {"ranks", start.ranks},
                              {"head_start_gpu_seconds", start.head_start_gpu_seconds},
                              {"host", start.host},
                              {"pid", start.pid},
                              {"recipe", start.recipe_hash},
                              {"build", start.build},
                              {"variants", Json::object_of(start.variants)},
                              {"from_step", start.from_step},
                              {"from_tokens", start.from_tokens},
                              {"cap_gpu_hours", finite(start.cap.gpu_hours)},
                              {"cap_from", start.cap.from},
                              {"job_hours", finite(start.cap.job_hours)},
                              {"parameters", start.parameters},
                              {"active_parameters", start.active_parameters},
                              {"flops_per_token", start.flops_per_token},
                              {"hardware", Json::object({{"name", start.hardware.name},
                                                         {"watts", start.hardware.watts},
                                                         {"peak", write(start.hardware.peak_flops)},
                                                         {"achievable", write(start.hardware.achievable_flops)},
                                                         {"achievable_source", start.hardware.achievable_source}})}});
  if (start.price) {
    object.add("price", Json::object({{"usd_per_gpu_hour", start.price->usd_per_gpu_hour},
                                      {"source", start.price->source},
                                      {"date", start.price->date}}));
  }
  return object;
}

std::map<std::string, std::string> read_variants(const Json& object) {
  std::map<std::string, std::string> variants;
  const Json* found = object.find("variants");
  if (found == nullptr) return variants;
  for (const auto& [op, variant] : found->members()) {
    if (variants.size() == kMostVariants) break;
    variants.emplace(op.substr(0, kLongestLabel), variant.text().substr(0, kLongestLabel));
  }
  return variants;
}

AttemptStart read_start(const Json& object) {
  AttemptStart start;
  start.run = text(object, "run");
  start.ranks = static_cast<int>(object.at("ranks").count(kMostRanks));
  if (start.ranks < 1) fail(ExitCode::bad_data, "ranks must be at least 1");
  start.head_start_gpu_seconds = number(object, "head_start_gpu_seconds");
  if (!(std::abs(start.head_start_gpu_seconds) <= kMostSeconds)) {
    fail(ExitCode::bad_data, "head_start_gpu_seconds = {}", start.head_start_gpu_seconds);
  }
  start.project = text(object, "project");
  start.host = text(object, "host");
  start.pid = object.whole_or("pid", 0);
  start.recipe_hash = text(object, "recipe");
  start.build = text(object, "build");
  start.variants = read_variants(object);
  start.from_step = std::clamp<std::int64_t>(object.whole_or("from_step", 0), -1, kMostCount);
  start.from_tokens = count(object, "from_tokens");
  start.cap.gpu_hours = limit(object, "cap_gpu_hours");
  start.cap.from = text(object, "cap_from");
  start.cap.job_hours = limit(object, "job_hours");
  start.parameters = count(object, "parameters");
  start.active_parameters = count(object, "active_parameters");
  start.flops_per_token = number(object, "flops_per_token");
  if (const Json* hardware = object.find("hardware")) start.hardware = read_hardware_part(*hardware);
  if (const Json* price = object.find("price")) {
    start.price =
        Price{price->at("usd_per_gpu_hour").number(), text(*price, "source", kLongestSentence), text(*price, "date")};
  }
  return start;
}

Json write(const AttemptProgress& progress) {
  Json object = Json::object({{"step", progress.step},
                              {"tokens", progress.tokens},
                              {"learned_tokens", progress.learned_tokens},
                              {"phase", progress.phase},
                              {"seconds", write(progress.seconds)},
                              {"flops", write(progress.flops)}});
  if (progress.loss != 0) object.add("loss", finite(progress.loss));
  if (progress.clipped > 0) object.add("clipped", progress.clipped);
  if (progress.skipped > 0) object.add("skipped", progress.skipped);
  if (progress.returns > 0) object.add("returns", progress.returns);
  return object;
}

AttemptProgress read_progress(const Json& object) {
  AttemptProgress progress;
  progress.step = count(object, "step");
  progress.tokens = count(object, "tokens");
  progress.learned_tokens = count(object, "learned_tokens");
  progress.phase = text(object, "phase");
  const Json& seconds = object.at("seconds");
  for (int i = 0; i < kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    progress.seconds[category] = bounded(seconds.number_or(name(category), 0));
  }
  progress.flops = read_formats(object, "flops");
  progress.loss = object.find("loss") == nullptr ? 0 : limit(object, "loss");
  progress.clipped = count(object, "clipped");
  progress.skipped = count(object, "skipped");
  progress.returns = count(object, "returns");
  return progress;
}

Json write(const CheckpointCommit& commit) {
  return Json::object({{"step", commit.step},
                       {"tokens", commit.tokens},
                       {"name", commit.name},
                       {"bytes", commit.bytes},
                       {"took_seconds", commit.took_seconds}});
}

CheckpointCommit read_commit(const Json& object) {
  return {count(object, "step"), count(object, "tokens"), text(object, "name"), count(object, "bytes"),
          bounded(number(object, "took_seconds"))};
}

Json write(const EvaluationResult& result) {
  return Json::object({{"step", result.step},
                       {"tokens", result.tokens},
                       {"loss", finite(result.loss)},
                       {"bits_per_byte", finite(result.bits_per_byte)},
                       {"took_seconds", result.took_seconds},
                       {"sequences", result.sequences},
                       {"all_sequences", result.all_sequences}});
}

EvaluationResult read_evaluation(const Json& object) {
  return {count(object, "step"),
          count(object, "tokens"),
          limit(object, "loss"),
          limit(object, "bits_per_byte"),
          bounded(number(object, "took_seconds")),
          count(object, "sequences"),
          count(object, "all_sequences")};
}

Json write(const SuiteResult& result) {
  Json scores = Json::array();
  for (const SuiteScore& score : result.scores) {
    Json one = Json::object(
        {{"task", score.task}, {"metric", score.metric}, {"requests", score.requests}, {"value", finite(score.value)}});
    if (score.error >= 0) one.add("error", finite(score.error));
    scores.push(std::move(one));
  }
  Json object = Json::object({{"step", result.step},
                              {"phase", result.phase},
                              {"requests", result.requests},
                              {"all_requests", result.all_requests},
                              {"took_seconds", result.took_seconds}});
  object.add("scores", std::move(scores));
  return object;
}

SuiteResult read_suites(const Json& object) {
  SuiteResult result{.step = count(object, "step"),
                     .phase = text(object, "phase"),
                     .requests = count(object, "requests"),
                     .all_requests = count(object, "all_requests"),
                     .took_seconds = bounded(number(object, "took_seconds")),
                     .scores = {}};
  for (const Json& one : object.at("scores").items()) {
    if (result.scores.size() == kMostScores) break;
    result.scores.push_back({.task = text(one, "task"),
                             .metric = text(one, "metric"),
                             .requests = count(one, "requests"),
                             .value = limit(one, "value"),
                             .error = one.find("error") == nullptr ? -1 : limit(one, "error")});
  }
  return result;
}

Json write(const PipelineUse& use) {
  return Json::object({{"schedule", use.schedule},
                       {"ranks", use.ranks},
                       {"stages", use.stages},
                       {"microbatches", use.microbatches},
                       {"steps", use.steps},
                       {"bubble", use.bubble},
                       {"simulated_bubble", use.simulated_bubble},
                       {"imbalance", use.imbalance},
                       {"stage_seconds", Json::array_of(use.stage_seconds)}});
}

PipelineUse read_pipeline(const Json& object) {
  PipelineUse use{.schedule = text(object, "schedule"),
                  .ranks = static_cast<int>(object.at("ranks").count(kMostRanks)),
                  .stages = static_cast<int>(object.at("stages").count(kMostRanks)),
                  .microbatches = static_cast<int>(object.at("microbatches").count(kMostRanks)),
                  .steps = count(object, "steps"),
                  .bubble = object.at("bubble").number(),
                  .simulated_bubble = object.at("simulated_bubble").number(),
                  .imbalance = object.at("imbalance").number()};
  for (const Json& seconds : object.at("stage_seconds").items()) use.stage_seconds.push_back(bounded(seconds.number()));
  return use;
}

Json write(const DataReading& reading) {
  Json late = Json::array();
  for (const LateShard& shard : reading.late) {
    late.push(Json::object({{"path", shard.path}, {"waited", shard.seconds}}));
  }
  return Json::object({{"waited", reading.wait_seconds},
                       {"storage_bytes", reading.storage_bytes},
                       {"storage_took", reading.storage_seconds},
                       {"copy_bytes", reading.copy_bytes},
                       {"copies_took", reading.copy_seconds},
                       {"staged_bytes", reading.staged_bytes},
                       {"staging_took", reading.staged_seconds},
                       {"late", std::move(late)}});
}

DataReading read_data(const Json& object) {
  DataReading reading{.wait_seconds = bounded(number(object, "waited")),
                      .storage_bytes = count(object, "storage_bytes"),
                      .storage_seconds = bounded(number(object, "storage_took")),
                      .copy_bytes = count(object, "copy_bytes"),
                      .copy_seconds = bounded(number(object, "copies_took")),
                      .staged_bytes = count(object, "staged_bytes"),
                      .staged_seconds = bounded(number(object, "staging_took"))};
  for (const Json& shard : object.at("late").items()) {
    if (reading.late.size() == kLateShards) break;
    reading.late.push_back({text(shard, "path", kLongestSentence), bounded(number(shard, "waited"))});
  }
  return reading;
}

std::vector<double> read_violations(const Json& object) {
  std::vector<double> violations;
  for (const Json& layer : object.at("max_violations").items()) violations.push_back(bounded(layer.number()));
  return violations;
}

Json write(const HorizonDecision& decision) {
  return Json::object({{"step", decision.step},
                       {"progress", decision.progress},
                       {"end_step", decision.end_step},
                       {"end_progress", decision.end_progress},
                       {"phase_index", decision.phase}});
}

HorizonDecision read_decision(const Json& object) {
  HorizonDecision decision{count(object, "step"), object.at("progress").number(), count(object, "end_step"),
                           object.at("end_progress").number(),
                           static_cast<int>(object.at("phase_index").count(kMostPhase))};
  if (decision.end_step <= decision.step)
    fail(ExitCode::bad_data, "a horizon that ends before it begins, and must not");
  return decision;
}

}  // namespace shoestring::ledger_lines
