#include "parallel/schedule_check.h"

#include <algorithm>
#include <map>
#include <utility>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::size_t kMostFaults = 20;

bool sends(ActionKind kind) { return kind == ActionKind::send_activation || kind == ActionKind::send_gradient; }

/// Counts (stage, micro-batch) pairs between their forward and an ending action.
struct InFlight {
  int now = 0;
  int peak = 0;
  void step(ActionKind kind, ActionKind ending) {
    if (kind == ActionKind::forward) peak = std::max(peak, ++now);
    if (kind == ending) --now;
  }
};

/// Walks the lists and notes what is wrong.
class Checker {
 public:
  explicit Checker(const Schedule& schedule)
      : schedule_(schedule), owner_(rank_of_stage(schedule)), forward_only_(forward_only(schedule)) {}

  ScheduleReport run() {
    if (!shape_holds()) return std::move(report_);
    for (std::size_t rank = 0; rank < schedule_.ranks.size(); ++rank) walk(static_cast<int>(rank));
    check_complete();
    if (report_.faults.empty()) check_pairs();
    if (report_.faults.empty()) check_deadlock();
    return std::move(report_);
  }

 private:
  enum Mark : unsigned {
    forward = 1,
    backward_input = 2,
    backward_weight = 4,
    activation = 8,
    gradient = 16,
    sent_activation = 32,
    sent_gradient = 64
  };

  template <class... Values>
  void fault(fmt::format_string<Values...> text, Values&&... values) {
    if (report_.faults.size() < kMostFaults)
      report_.faults.push_back(fmt::format(text, std::forward<Values>(values)...));
  }

  unsigned& marks(int stage, int microbatch) {
    return marks_[static_cast<std::size_t>(stage) * static_cast<std::size_t>(schedule_.microbatches) +
                  static_cast<std::size_t>(microbatch)];
  }
  int owner(int stage) const { return owner_[static_cast<std::size_t>(stage)]; }
  bool has_before(int stage) const { return stage > 0; }
  bool has_after(int stage) const { return stage + 1 < schedule_.stages; }
  bool before_is_local(int stage) const { return owner(stage - 1) == owner(stage); }
  bool after_is_local(int stage) const { return owner(stage + 1) == owner(stage); }

  bool shape_holds() {
    if (schedule_.stages < 1 || schedule_.microbatches < 1 || schedule_.ranks.empty()) {
      fault("{} stages, {} micro-batches, {} ranks", schedule_.stages, schedule_.microbatches, schedule_.ranks.size());
      return false;
    }
    for (std::size_t rank = 0; rank < schedule_.ranks.size(); ++rank) {
      const auto& list = schedule_.ranks[rank];
      for (const Action& action : list) {
        const bool inside = action.stage >= 0 && action.stage < schedule_.stages && action.microbatch >= 0 &&
                            action.microbatch < schedule_.microbatches;
        if (!inside) {
          fault("rank {}: {} is outside {} stages and {} micro-batches", rank, to_string(action), schedule_.stages,
                schedule_.microbatches);
        } else if (owner(action.stage) != static_cast<int>(rank)) {
          fault("rank {}: {}, but stage {} belongs to rank {}", rank, to_string(action), action.stage,
                owner(action.stage));
        }
        if (action.with_next && (&action == &list.back() || !action.computes() || !(&action + 1)->computes())) {
          fault("rank {}: {} opens a cell that no computation follows", rank, to_string(action));
        }
      }
    }
    for (int stage = 0; stage < schedule_.stages; ++stage) {
      if (owner(stage) < 0) fault("no rank computes stage {}", stage);
    }
    marks_.assign(static_cast<std::size_t>(schedule_.stages) * static_cast<std::size_t>(schedule_.microbatches), 0);
    weights_.assign(static_cast<std::size_t>(schedule_.stages), 0);
    return report_.faults.empty();
  }

  /// What an action needs to have happened before it on the same rank, as (marks of which stage).
  void need(int rank, const Action& action, int stage, unsigned mark, const char* what) {
    if ((marks(stage, action.microbatch) & mark) == 0)
      fault("rank {}: {} comes before {}", rank, to_string(action), what);
  }
  void set(int rank, const Action& action, unsigned mark) {
    unsigned& at = marks(action.stage, action.microbatch);
    if ((at & mark) != 0) fault("rank {}: {} stands twice", rank, to_string(action));
    at |= mark;
  }

  void walk(int rank) {
    InFlight until_input, until_weight;
    for (const Action& action : schedule_.ranks[static_cast<std::size_t>(rank)]) {
      if (action.computes()) {
        walk_computation(rank, action);
      } else {
        walk_transfer(rank, action);
      }
      until_input.step(action.kind, forward_only_ ? ActionKind::forward : ActionKind::backward_input);
      until_weight.step(action.kind, forward_only_ ? ActionKind::forward : ActionKind::backward_weight);
    }
    report_.peak_until_backward_input.push_back(until_input.peak);
    report_.peak_until_backward_weight.push_back(until_weight.peak);
  }

  void walk_computation(int rank, const Action& action) {
    const int s = action.stage;
    if (action.kind == ActionKind::forward) {
      if (has_before(s) && before_is_local(s)) need(rank, action, s - 1, forward, "the forward of the stage before");
      if (has_before(s) && !before_is_local(s)) need(rank, action, s, activation, "its activation is received");
      set(rank, action, forward);
    } else if (action.kind == ActionKind::backward_input) {
      need(rank, action, s, forward, "its forward");
      if (has_after(s) && after_is_local(s))
        need(rank, action, s + 1, backward_input, "the backward of the stage after");
      if (has_after(s) && !after_is_local(s)) need(rank, action, s, gradient, "its gradient is received");
      set(rank, action, backward_input);
    } else {
      need(rank, action, s, backward_input, "its input gradient");
      set(rank, action, backward_weight);
      if (weights_[static_cast<std::size_t>(s)]++ != action.microbatch) {
        fault("rank {}: {} breaks the micro-batch order of weight gradients", rank, to_string(action));
      }
    }
  }

  void walk_transfer(int rank, const Action& action) {
    const int s = action.stage;
    const bool to_after = action.kind == ActionKind::send_activation || action.kind == ActionKind::recv_gradient;
    if (to_after ? !has_after(s) || after_is_local(s) : !has_before(s) || before_is_local(s)) {
      fault("rank {}: {} has no other rank at its other end", rank, to_string(action));
    }
    switch (action.kind) {
      case ActionKind::send_activation:
        need(rank, action, s, forward, "its forward");
        return set(rank, action, sent_activation);
      case ActionKind::recv_activation: return set(rank, action, activation);
      case ActionKind::send_gradient:
        need(rank, action, s, backward_input, "its input gradient");
        return set(rank, action, sent_gradient);
      default: need(rank, action, s, forward, "its forward"); return set(rank, action, gradient);
    }
  }

  void check_complete() {
    constexpr std::pair<unsigned, ActionKind> kMarks[] = {{forward, ActionKind::forward},
                                                          {backward_input, ActionKind::backward_input},
                                                          {backward_weight, ActionKind::backward_weight},
                                                          {activation, ActionKind::recv_activation},
                                                          {gradient, ActionKind::recv_gradient},
                                                          {sent_activation, ActionKind::send_activation},
                                                          {sent_gradient, ActionKind::send_gradient}};
    for (int stage = 0; stage < schedule_.stages; ++stage) {
      unsigned wanted = forward | backward_input | backward_weight;
      if (has_before(stage) && !before_is_local(stage)) wanted |= activation | sent_gradient;
      if (has_after(stage) && !after_is_local(stage)) wanted |= gradient | sent_activation;
      if (forward_only_) wanted &= forward | activation | sent_activation;
      for (int microbatch = 0; microbatch < schedule_.microbatches; ++microbatch) {
        for (const auto& [mark, kind] : kMarks) {
          if ((wanted & ~marks(stage, microbatch) & mark) == 0) continue;
          fault("rank {}: {} is missing", owner(stage), to_string(Action{kind, stage, microbatch}));
        }
      }
    }
  }

  int peer_of(const Action& action) const {
    const bool up = action.kind == ActionKind::send_activation || action.kind == ActionKind::recv_gradient;
    return owner(up ? action.stage + 1 : action.stage - 1);
  }
  /// The send that a receive stands for.
  static Action sent_for(const Action& receive) {
    if (receive.kind == ActionKind::recv_activation) {
      return {ActionKind::send_activation, receive.stage - 1, receive.microbatch};
    }
    return {ActionKind::send_gradient, receive.stage + 1, receive.microbatch};
  }

  void check_pairs() {
    std::map<std::pair<int, int>, std::pair<std::vector<Action>, std::vector<Action>>> pairs;  // (from, to)
    for (int rank = 0; rank < static_cast<int>(schedule_.ranks.size()); ++rank) {
      for (const Action& action : schedule_.ranks[static_cast<std::size_t>(rank)]) {
        if (action.computes()) continue;
        if (sends(action.kind)) {
          pairs[{rank, peer_of(action)}].first.push_back(action);
        } else {
          pairs[{peer_of(action), rank}].second.push_back(sent_for(action));
        }
      }
    }
    for (const auto& [ends, lists] : pairs) {
      const auto& [sent, received] = lists;
      const std::size_t both = std::min(sent.size(), received.size());
      for (std::size_t i = 0; i < both; ++i) {
        if (sent[i] == received[i]) continue;
        fault("message {} from rank {} to rank {}: {} is sent where {} is received", i, ends.first, ends.second,
              to_string(sent[i]), to_string(received[i]));
        break;
      }
      if (sent.size() != received.size()) {
        fault("rank {} sends {} messages to rank {}, which receives {}", ends.first, sent.size(), ends.second,
              received.size());
      }
    }
  }

  /// Every message holds both its ranks until both have come to it. Which of several possible messages goes first makes
  /// no difference: a rank stands at one action only.
  void check_deadlock() {
    std::vector<std::size_t> next(schedule_.ranks.size(), 0);
    const auto list = [&](int rank) -> const std::vector<Action>& {
      return schedule_.ranks[static_cast<std::size_t>(rank)];
    };
    const auto skip_computation = [&](int rank) {
      std::size_t& at = next[static_cast<std::size_t>(rank)];
      while (at < list(rank).size() && list(rank)[at].computes()) ++at;
      return at < list(rank).size();
    };
    std::vector<int> ready;
    for (int rank = 0; rank < static_cast<int>(list_count()); ++rank) ready.push_back(rank);
    while (!ready.empty()) {
      const int rank = ready.back();
      ready.pop_back();
      if (!skip_computation(rank)) continue;
      const Action& mine = list(rank)[next[static_cast<std::size_t>(rank)]];
      const int peer = peer_of(mine);
      if (!skip_computation(peer)) continue;
      const Action& theirs = list(peer)[next[static_cast<std::size_t>(peer)]];
      const bool meet = sends(mine.kind) ? !sends(theirs.kind) && sent_for(theirs) == mine
                                         : sends(theirs.kind) && sent_for(mine) == theirs;
      if (!meet) continue;
      ++next[static_cast<std::size_t>(rank)];
      ++next[static_cast<std::size_t>(peer)];
      ready.push_back(rank);
      ready.push_back(peer);
    }
    for (int rank = 0; rank < static_cast<int>(list_count()); ++rank) {
      if (!skip_computation(rank)) continue;
      const Action& mine = list(rank)[next[static_cast<std::size_t>(rank)]];
      fault("deadlock: rank {} waits at {} for rank {}", rank, to_string(mine), peer_of(mine));
    }
  }
  std::size_t list_count() const { return schedule_.ranks.size(); }

  const Schedule& schedule_;
  std::vector<int> owner_;
  bool forward_only_;
  ScheduleReport report_;
  std::vector<unsigned> marks_;  // [stages, microbatches]
  std::vector<int> weights_;     // W so far, per stage
};

}  // namespace

ScheduleReport check_schedule(const Schedule& schedule) { return Checker(schedule).run(); }

std::vector<int> peak_of_stages(const Schedule& schedule) {
  const ActionKind ending = forward_only(schedule) ? ActionKind::forward : ActionKind::backward_weight;
  std::vector<InFlight> stages(static_cast<std::size_t>(schedule.stages));
  for (const auto& list : schedule.ranks) {
    for (const Action& action : list) stages.at(static_cast<std::size_t>(action.stage)).step(action.kind, ending);
  }
  std::vector<int> peaks;
  for (const InFlight& stage : stages) peaks.push_back(stage.peak);
  return peaks;
}

void require_sound(const Schedule& schedule) {
  const ScheduleReport report = check_schedule(schedule);
  std::string text;
  for (const std::string& fault : report.faults) text += "\n  " + fault;
  check(report.faults.empty(), "schedule {} is not sound:{}", schedule.name, text);
}

}  // namespace shoestring
