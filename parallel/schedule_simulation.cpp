#include "parallel/schedule_simulation.h"

#include <algorithm>
#include <limits>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

class Simulation {
 public:
  Simulation(const Schedule& schedule, const ActionTimes& times)
      : schedule_(schedule),
        times_(times),
        owner_(rank_of_stage(schedule)),
        lists_(schedule.ranks.size()),
        next_(schedule.ranks.size(), 0),
        free_(schedule.ranks.size(), 0.0) {
    for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
      for (const Action& action : schedule.ranks[rank]) {
        if (action.computes()) lists_[rank].push_back(action);
      }
    }
    const auto pairs = static_cast<std::size_t>(schedule.stages) * static_cast<std::size_t>(schedule.microbatches);
    forward_end_.assign(pairs, kNever);
    backward_end_.assign(pairs, kNever);
  }

  /// Always takes the cell that ends first, so ends never go back in time.
  std::string run(const OnCell& on_cell) {
    for (;;) {
      std::size_t best = lists_.size();
      double best_end = kNever;
      for (std::size_t rank = 0; rank < lists_.size(); ++rank) {
        const std::span<const Action> cell = next_cell(rank);
        if (cell.empty()) continue;
        const double end = start_of(rank, cell) + duration(cell);
        if (end < best_end) {
          best = rank;
          best_end = end;
        }
      }
      if (best == lists_.size()) return stuck();
      const std::span<const Action> cell = next_cell(best);
      const double start = start_of(best, cell);
      for (const Action& action : cell) {
        if (action.kind == ActionKind::forward) forward_end_[at(action.stage, action.microbatch)] = best_end;
        if (action.kind == ActionKind::backward_input) backward_end_[at(action.stage, action.microbatch)] = best_end;
      }
      free_[best] = best_end;
      next_[best] += cell.size();
      on_cell(static_cast<int>(best), cell, start, best_end);
    }
  }

 private:
  std::size_t at(int stage, int microbatch) const {
    return static_cast<std::size_t>(stage) * static_cast<std::size_t>(schedule_.microbatches) +
           static_cast<std::size_t>(microbatch);
  }

  std::span<const Action> next_cell(std::size_t rank) const {
    const auto& list = lists_[rank];
    const std::size_t begin = next_[rank];
    if (begin == list.size()) return {};
    std::size_t end = begin + 1;
    while (end < list.size() && list[end - 1].with_next) ++end;
    return std::span(list).subspan(begin, end - begin);
  }

  double duration(std::span<const Action> cell) const {
    double sum = 0;
    for (const Action& action : cell) {
      const double factor = times_.per_stage.empty() ? 1.0 : times_.per_stage[static_cast<std::size_t>(action.stage)];
      sum += factor * (action.kind == ActionKind::forward          ? times_.forward
                       : action.kind == ActionKind::backward_input ? times_.backward_input
                                                                   : times_.backward_weight);
    }
    return cell.size() > 1 ? sum * (1 - times_.cell_hidden) : sum;
  }

  double arrival(double produced, int from_stage, int to_stage) const {
    const bool local = owner_[static_cast<std::size_t>(from_stage)] == owner_[static_cast<std::size_t>(to_stage)];
    return produced + (local ? 0.0 : times_.transfer);
  }

  /// When everything the cell needs from outside is there; never, while some of it has not been computed.
  double start_of(std::size_t rank, std::span<const Action> cell) const {
    double start = free_[rank];
    for (std::size_t i = 0; i < cell.size(); ++i) {
      const Action& action = cell[i];
      const auto inside = [&](ActionKind kind) {
        const auto same = [&](const Action& other) {
          return other.kind == kind && other.stage == action.stage && other.microbatch == action.microbatch;
        };
        return std::any_of(cell.begin(), cell.begin() + static_cast<std::ptrdiff_t>(i), same);
      };
      const auto wait_for = [&](ActionKind kind, double own_end) {
        if (!inside(kind)) start = std::max(start, own_end);
      };
      if (action.kind == ActionKind::forward && action.stage > 0) {
        const double produced = forward_end_[at(action.stage - 1, action.microbatch)];
        start = std::max(start, arrival(produced, action.stage - 1, action.stage));
      } else if (action.kind == ActionKind::backward_input) {
        wait_for(ActionKind::forward, forward_end_[at(action.stage, action.microbatch)]);
        if (action.stage + 1 < schedule_.stages) {
          const double produced = backward_end_[at(action.stage + 1, action.microbatch)];
          start = std::max(start, arrival(produced, action.stage + 1, action.stage));
        }
      } else if (action.kind == ActionKind::backward_weight) {
        wait_for(ActionKind::backward_input, backward_end_[at(action.stage, action.microbatch)]);
      }
    }
    return start;
  }

  std::string stuck() const {
    std::string text;
    for (std::size_t rank = 0; rank < lists_.size(); ++rank) {
      const std::span<const Action> cell = next_cell(rank);
      if (!cell.empty())
        text += fmt::format("{}rank {} waits before {}", text.empty() ? "" : "; ", rank, to_string(cell[0]));
    }
    return text;
  }

  const Schedule& schedule_;
  const ActionTimes& times_;
  std::vector<int> owner_;
  std::vector<std::vector<Action>> lists_;
  std::vector<std::size_t> next_;
  std::vector<double> free_;
  std::vector<double> forward_end_, backward_end_;  // [stages, microbatches]
};

}  // namespace

std::string simulate(const Schedule& schedule, const ActionTimes& times, const OnCell& on_cell) {
  check(times.per_stage.empty() || static_cast<int>(times.per_stage.size()) == schedule.stages,
        "{} time factors for {} stages", times.per_stage.size(), schedule.stages);
  for (const auto& list : schedule.ranks) {
    for (const Action& action : list) {
      check(action.stage >= 0 && action.stage < schedule.stages && action.microbatch >= 0 &&
                action.microbatch < schedule.microbatches,
            "{} is not in a schedule of {} stages and {} micro-batches", to_string(action), schedule.stages,
            schedule.microbatches);
    }
  }
  return Simulation(schedule, times).run(on_cell);
}

Schedule with_transfers(const Schedule& computation) {
  Schedule schedule{computation.name, computation.stages, computation.microbatches, {}};
  schedule.ranks.resize(computation.ranks.size());
  const std::vector<int> owner = rank_of_stage(computation);
  const auto transfer = [&](ActionKind send, ActionKind receive, const Action& from, int to_stage) {
    const int sender = owner[static_cast<std::size_t>(from.stage)];
    const int receiver = owner[static_cast<std::size_t>(to_stage)];
    if (sender == receiver) return;
    schedule.ranks[static_cast<std::size_t>(sender)].push_back({send, from.stage, from.microbatch});
    schedule.ranks[static_cast<std::size_t>(receiver)].push_back({receive, to_stage, from.microbatch});
  };
  const auto on_cell = [&](int rank, std::span<const Action> cell, double, double) {
    auto& list = schedule.ranks[static_cast<std::size_t>(rank)];
    list.insert(list.end(), cell.begin(), cell.end());
    for (const Action& action : cell) {
      if (action.kind == ActionKind::forward && action.stage + 1 < schedule.stages) {
        transfer(ActionKind::send_activation, ActionKind::recv_activation, action, action.stage + 1);
      } else if (action.kind == ActionKind::backward_input && action.stage > 0) {
        transfer(ActionKind::send_gradient, ActionKind::recv_gradient, action, action.stage - 1);
      }
    }
  };
  const std::string stuck = simulate(computation, ActionTimes{}, on_cell);
  check(stuck.empty(), "schedule {} waits in a circle: {}", computation.name, stuck);
  return schedule;
}

Prediction predict(const Schedule& schedule, const ActionTimes& times) {
  Prediction prediction;
  prediction.busy.assign(schedule.ranks.size(), 0.0);
  prediction.inner.assign(schedule.ranks.size(), 0.0);
  std::vector<double> last(schedule.ranks.size(), -1.0);
  const auto on_cell = [&](int rank, std::span<const Action>, double start, double end) {
    const auto at = static_cast<std::size_t>(rank);
    prediction.busy[at] += end - start;
    if (last[at] >= 0) prediction.inner[at] += start - last[at];
    last[at] = end;
    prediction.makespan = std::max(prediction.makespan, end);
  };
  const std::string stuck = simulate(schedule, times, on_cell);
  check(stuck.empty(), "schedule {} waits in a circle: {}", schedule.name, stuck);
  for (const double busy : prediction.busy) prediction.bubble.push_back(prediction.makespan - busy);
  return prediction;
}

double Prediction::worst_bubble() const {
  return bubble.empty() ? 0.0 : *std::max_element(bubble.begin(), bubble.end());
}

}  // namespace shoestring
