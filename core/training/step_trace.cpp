#include "core/training/step_trace.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "core/recipe/names.h"
#include "kernels/base/json.h"
#include "parallel/schedule_check.h"

namespace shoestring {
namespace {

constexpr int kComputing = 3;  // kinds of action that compute

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Action action_of(const TraceEvent& event) {
  return {static_cast<ActionKind>(event.kind), event.stage, event.microbatch};
}

double mean(double sum, std::int64_t count) { return count > 0 ? sum / static_cast<double>(count) : 0; }

/// One reduction group of one step.
struct GroupOfStep {
  double begin = std::numeric_limits<double>::infinity();
  double end = 0;
  double busy = 0;
  int microbatches = 0;
};

/// Mean seconds of each kind of action.
struct StageTimes {
  std::array<double, kComputing> sum{};
  std::array<std::int64_t, kComputing> count{};

  double of(ActionKind kind) const {
    const auto at = static_cast<std::size_t>(kind);
    return mean(sum[at], count[at]);
  }
  double all() const {
    return of(ActionKind::forward) + of(ActionKind::backward_input) + of(ActionKind::backward_weight);
  }
};

/// What the list alone would lose at these times: the sum over ranks of makespan less work, over that of makespans.
double simulated_bubble(const Schedule& schedule, const std::vector<StageTimes>& stages) {
  ActionTimes times{.forward = 0, .backward_input = 0, .backward_weight = 0};
  double all = 0;
  for (const StageTimes& stage : stages) {
    const auto count = static_cast<double>(stages.size());
    times.forward += stage.of(ActionKind::forward) / count;
    times.backward_input += stage.of(ActionKind::backward_input) / count;
    times.backward_weight += stage.of(ActionKind::backward_weight) / count;
    all += stage.all() / count;
  }
  for (const StageTimes& stage : stages) times.per_stage.push_back(all > 0 ? stage.all() / all : 1);
  const Prediction expected = predict(schedule, times);
  const double rank_seconds = expected.makespan * static_cast<double>(expected.bubble.size());
  return rank_seconds > 0 ? std::accumulate(expected.bubble.begin(), expected.bubble.end(), 0.0) / rank_seconds : 0;
}

}  // namespace

StepTrace::StepTrace(Communicator& world, const Layout& layout, std::int64_t wanted) : world_(world), wanted_(wanted) {
  constexpr std::int64_t kMeasured = 3;
  if (layout.shape.pipeline > 1) wanted_ = std::max(wanted_, kMeasured);
  gathered_ = wanted_ == 0;
}

void StepTrace::begin_step() {
  if (seen_ == 1) origin_ = now();
}

void StepTrace::stepped(std::int64_t step, const Pass& pass) {
  if (++seen_ == 1 || gathered_ || seen_ > wanted_ + 1) return;
  for (const GroupTrace& group : pass.traces()) {
    std::int32_t place = 0;
    for (const TraceEntry& entry : group.entries) {
      own_.push_back({.step = step,
                      .rank = world_.rank(),
                      .group = group.group,
                      .kind = static_cast<std::int32_t>(entry.action.kind),
                      .stage = entry.action.stage,
                      .microbatch = entry.action.microbatch,
                      .place = place++,
                      .begin_seconds = group.begin_seconds + entry.start_seconds - origin_,
                      .end_seconds = group.begin_seconds + entry.end_seconds - origin_,
                      .own_seconds = entry.own_seconds,
                      .wait_seconds = entry.wait_seconds});
    }
  }
}

std::vector<TraceEvent> StepTrace::gather() {
  gathered_ = true;
  std::vector<std::int64_t> counts(static_cast<std::size_t>(world_.size()));
  const auto own = static_cast<std::int64_t>(own_.size());
  world_.all_gather(view_of(counts.data(), DType::i64, {world_.size()}), view_of(&own, DType::i64, {1}));
  const auto bytes = [](std::vector<TraceEvent>& events) {
    return view_of(static_cast<void*>(events.data()), DType::u8,
                   {static_cast<std::int64_t>(events.size() * sizeof(TraceEvent))});
  };
  if (world_.rank() > 0) {
    if (own > 0) world_.send(bytes(own_), 0);
    own_.clear();
    return {};
  }
  std::vector<TraceEvent> all = std::move(own_);
  for (int rank = 1; rank < world_.size(); ++rank) {
    std::vector<TraceEvent> theirs(static_cast<std::size_t>(counts[static_cast<std::size_t>(rank)]));
    if (!theirs.empty()) world_.recv(bytes(theirs), rank);
    all.insert(all.end(), theirs.begin(), theirs.end());
  }
  return all;
}

std::string chrome_trace(const std::vector<TraceEvent>& events, const MeshShape& shape) {
  constexpr double kMicroseconds = 1e6;
  constexpr const char* kKinds[] = {"forward", "backward input", "backward weight"};
  Json list = Json::array();
  std::map<std::pair<int, bool>, double> ends;  // of each row: a rank's, and that of what began before its last ended
  const auto name_row = [&](const MeshCoordinates& at, int thread, const std::string& name) {
    list.push(Json::object({{"name", "thread_name"},
                            {"ph", "M"},
                            {"pid", at.data},
                            {"tid", thread},
                            {"args", Json::object({{"name", name}})}}));
  };
  for (const TraceEvent& event : events) {
    const MeshCoordinates at = coordinates_of(shape, event.rank);
    const bool first = !ends.contains({event.rank, false});
    const bool half = !first && action_of(event).computes() && event.begin_seconds < ends[{event.rank, false}];
    const int thread = half ? shape.pipeline + at.pipeline : at.pipeline;
    if (half && !ends.contains({event.rank, true})) name_row(at, thread, fmt::format("rank {}, in turns", event.rank));
    if (action_of(event).computes()) ends[{event.rank, half}] = event.end_seconds;
    if (first) {
      name_row(at, thread, fmt::format("rank {}", event.rank));
      list.push(Json::object({{"name", "process_name"},
                              {"ph", "M"},
                              {"pid", at.data},
                              {"args", Json::object({{"name", fmt::format("data {}", at.data)}})}}));
    }
    const auto add = [&](const std::string& name, const char* category, double begin, double end) {
      list.push(Json::object({{"name", name},
                              {"cat", category},
                              {"ph", "X"},
                              {"ts", begin * kMicroseconds},
                              {"dur", (end - begin) * kMicroseconds},
                              {"pid", at.data},
                              {"tid", thread},
                              {"args", Json::object({{"step", event.step}, {"group", event.group}})}}));
    };
    const Action action = action_of(event);
    if (event.wait_seconds > 0) add("wait", "wait", event.begin_seconds - event.wait_seconds, event.begin_seconds);
    add(to_string(action), action.computes() ? kKinds[event.kind] : "message", event.begin_seconds, event.end_seconds);
  }
  return Json::object({{"displayTimeUnit", "ms"}, {"traceEvents", std::move(list)}}).dump();
}

std::optional<PipelineUse> pipeline_use(const std::vector<TraceEvent>& events, const Layout& layout) {
  if (layout.shape.pipeline == 1) return std::nullopt;
  std::map<std::pair<std::int64_t, int>, GroupOfStep> groups;  // by step and reduction group
  std::vector<StageTimes> stages(static_cast<std::size_t>(layout.stage_count()));
  std::set<std::int64_t> steps;
  for (const TraceEvent& event : events) {
    if (!action_of(event).computes()) continue;
    GroupOfStep& group = groups[{event.step, event.group}];
    group.begin = std::min(group.begin, event.begin_seconds - event.wait_seconds);
    group.end = std::max(group.end, event.end_seconds);
    group.busy += event.own_seconds;
    group.microbatches = std::max(group.microbatches, event.microbatch + 1);
    StageTimes& stage = stages.at(static_cast<std::size_t>(event.stage));
    stage.sum[static_cast<std::size_t>(event.kind)] += event.own_seconds;
    ++stage.count[static_cast<std::size_t>(event.kind)];
    steps.insert(event.step);
  }
  if (groups.empty()) return std::nullopt;
  PipelineUse use{.schedule = std::string(word(layout.schedule.name)),
                  .ranks = layout.shape.pipeline,
                  .stages = layout.stage_count(),
                  .steps = static_cast<std::int64_t>(steps.size())};
  double busy = 0;
  double all = 0;
  double expected = 0;
  for (const auto& [key, group] : groups) {
    busy += group.busy;
    const double rank_seconds = (group.end - group.begin) * layout.shape.pipeline;
    all += rank_seconds;
    use.microbatches = std::max(use.microbatches, group.microbatches);
    const Schedule list = make_schedule(layout.schedule, layout.shape.pipeline, group.microbatches);
    expected += simulated_bubble(list, stages) * rank_seconds;
  }
  use.bubble = all > 0 ? 1 - busy / all : 0;
  use.simulated_bubble = all > 0 ? expected / all : 0;
  double sum = 0;
  for (const StageTimes& stage : stages) {
    use.stage_seconds.push_back(stage.all());
    sum += stage.all();
  }
  const double slowest = *std::max_element(use.stage_seconds.begin(), use.stage_seconds.end());
  use.imbalance = sum > 0 ? slowest * static_cast<double>(stages.size()) / sum - 1 : 0;
  return use;
}

}  // namespace shoestring
