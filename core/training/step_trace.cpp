#include "core/training/step_trace.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/recipe/names.h"
#include "kernels/base/json.h"
#include "parallel/schedule_check.h"

namespace shoestring {
namespace {

constexpr int kComputing = 3;  // kinds of action that compute

/// Whether it is time without anything to compute.
bool waits(Category category) {
  return category == Category::bubble || category == Category::exposed_communication || category == Category::data_wait;
}

/// On rank 0 those of all ranks, in turn; nothing elsewhere. Collective.
template <class Entry>
std::vector<Entry> gathered(Communicator& world, std::vector<Entry> own) {
  static_assert(std::is_trivially_copyable_v<Entry>);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(world.size()));
  const auto count = static_cast<std::int64_t>(own.size());
  world.all_gather(view_of(counts.data(), DType::i64, {world.size()}), view_of(&count, DType::i64, {1}));
  const auto bytes = [](std::vector<Entry>& entries) {
    return view_of(static_cast<void*>(entries.data()), DType::u8,
                   {static_cast<std::int64_t>(entries.size() * sizeof(Entry))});
  };
  if (world.rank() > 0) {
    if (count > 0) world.send(bytes(own), 0);
    return {};
  }
  for (int rank = 1; rank < world.size(); ++rank) {
    std::vector<Entry> theirs(static_cast<std::size_t>(counts[static_cast<std::size_t>(rank)]));
    if (!theirs.empty()) world.recv(bytes(theirs), rank);
    own.insert(own.end(), theirs.begin(), theirs.end());
  }
  return own;
}

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

StepTrace::StepTrace(Communicator& world, const Layout& layout, std::int64_t wanted, Meter& meter)
    : world_(world), meter_(meter), wanted_(wanted) {
  constexpr std::int64_t kMeasured = 3;
  if (layout.shape.pipeline > 1) wanted_ = std::max(wanted_, kMeasured);
  gathered_ = wanted_ == 0;
  meter_.tell([this](Category category, double begin, double end) {
    if (!recording() || !waits(category)) return;
    own_.waits.push_back({world_.rank(), static_cast<std::int32_t>(category), begin - *origin_, end - *origin_});
  });
}

StepTrace::~StepTrace() { meter_.tell({}); }

void StepTrace::begin_step() {
  if (seen_ == 1) origin_ = meter_.elapsed_seconds();
}

void StepTrace::stepped(std::int64_t step, const Pass& pass) {
  const bool recorded = recording();
  ++seen_;
  if (!recorded) return;
  for (const GroupTrace& group : pass.traces()) {
    const double begin = group.begin_seconds - *origin_;
    std::int32_t place = 0;
    for (const TraceEntry& entry : group.entries) {
      own_.events.push_back({.step = step,
                             .rank = world_.rank(),
                             .group = group.group,
                             .kind = static_cast<std::int32_t>(entry.action.kind),
                             .stage = entry.action.stage,
                             .microbatch = entry.action.microbatch,
                             .place = place++,
                             .begin_seconds = begin + entry.start_seconds,
                             .end_seconds = begin + entry.end_seconds,
                             .own_seconds = entry.own_seconds,
                             .wait_seconds = entry.wait_seconds});
    }
  }
}

RunTrace StepTrace::gather() {
  gathered_ = true;
  RunTrace all;
  all.events = gathered(world_, std::move(own_.events));
  all.waits = gathered(world_, std::move(own_.waits));
  return all;
}

namespace {

/// Puts together the time line of a run.
class TimeLine {
 public:
  explicit TimeLine(const MeshShape& shape) : shape_(shape) {}

  void add(const TraceEvent& event) {
    const Action action = action_of(event);
    double& end = ends_[event.rank];
    const bool half = action.computes() && event.begin_seconds < end;  // began before the last of its rank had ended
    if (action.computes() && !half) end = event.end_seconds;
    add(event.rank, half ? Row::turns : Row::actions, to_string(action),
        action.computes() ? kKinds[event.kind] : "message", event.begin_seconds, event.end_seconds,
        Json::object({{"step", event.step}, {"group", event.group}}));
  }
  void add(const TraceWait& wait) {
    add(wait.rank, Row::waits, std::string(name(static_cast<Category>(wait.category))), "wait", wait.begin_seconds,
        wait.end_seconds, Json::object({}));
  }
  std::string text() && { return Json::object({{"displayTimeUnit", "ms"}, {"traceEvents", std::move(list_)}}).dump(); }

 private:
  enum class Row { actions, turns, waits };
  static constexpr const char* kKinds[] = {"forward", "backward input", "backward weight"};
  static constexpr const char* kRows[] = {"", ", in turns", ", waits"};

  void add(int rank, Row row, const std::string& name, const char* category, double begin, double end, Json args) {
    constexpr double kMicroseconds = 1e6;
    const MeshCoordinates at = coordinates_of(shape_, rank);
    const auto place = static_cast<int>(row);
    const int thread = place * shape_.pipeline + at.pipeline;
    if (processes_.insert(at.data).second) describe("process_name", at.data, 0, fmt::format("data {}", at.data));
    if (rows_.emplace(rank, row).second) {
      describe("thread_name", at.data, thread, fmt::format("rank {}{}", rank, kRows[place]));
    }
    list_.push(Json::object({{"name", name},
                             {"cat", category},
                             {"ph", "X"},
                             {"ts", begin * kMicroseconds},
                             {"dur", (end - begin) * kMicroseconds},
                             {"pid", at.data},
                             {"tid", thread},
                             {"args", std::move(args)}}));
  }
  void describe(const char* what, int process, int thread, const std::string& name) {
    list_.push(Json::object(
        {{"name", what}, {"ph", "M"}, {"pid", process}, {"tid", thread}, {"args", Json::object({{"name", name}})}}));
  }

  MeshShape shape_;
  Json list_ = Json::array();
  std::map<int, double> ends_;  // of the actions of each rank that stand in its first row
  std::set<int> processes_;     // that have names, as the next
  std::set<std::pair<int, Row>> rows_;
};

}  // namespace

std::string chrome_trace(const RunTrace& trace, const MeshShape& shape) {
  TimeLine line(shape);
  for (const TraceEvent& event : trace.events) line.add(event);
  for (const TraceWait& wait : trace.waits) line.add(wait);
  return std::move(line).text();
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
