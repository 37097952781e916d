// Buffers. A slot holds what one (stage, micro-batch) must keep: its input, and the gradient of its output. It is taken
// when something is first written into it and given back by backward_weight. Between two stages of one rank nothing is
// copied: a stage writes straight into its neighbour's slot. What leaves for another rank is written into an outbox of
// one buffer more than the list ever has unsent; a computation may wait for the oldest message of its outbox. That wait
// cannot close a circle, because the schedule was proved free of deadlock with every message waiting in its place.
//
// A dry walk over the list finds the number of slots and buffers, so that `run` allocates nothing.
#include "parallel/pipeline.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>

#include "parallel/schedule_check.h"
#include "parallel/vital_signs.h"

namespace shoestring {
namespace {

/// Buffers in turn for what goes to another rank.
class Outbox {
 public:
  void plan_write(int microbatch) {
    unsent_.push_back(microbatch);
    width_ = std::max(width_, unsent_.size() + 1);
  }
  void plan_send(const Action& action) {
    check(!unsent_.empty() && unsent_.front() == action.microbatch, "{} does not send what was computed first",
          to_string(action));
    unsent_.pop_front();
  }
  /// Returns the bytes taken.
  std::int64_t allocate(const Boundary& boundary) {
    std::int64_t bytes = 0;
    under_way_.resize(width_);
    for (std::size_t i = 0; i < width_; ++i) {
      buffers_.emplace_back(boundary.dtype, boundary.shape, boundary.device);
      bytes += buffers_.back().bytes();
    }
    return bytes;
  }

  Pending& last_use_of_next() { return under_way_[written_ % width_]; }
  TensorView write_next() { return buffers_[written_++ % width_].view(); }
  void send_next(Communicator& communicator, int peer) {
    const std::size_t at = sent_++ % width_;
    communicator.group_begin();
    communicator.send(buffers_[at], peer);
    under_way_[at] = communicator.group_post();
  }
  std::vector<Pending>& under_way() { return under_way_; }

 private:
  std::deque<int> unsent_;  // while planning
  std::size_t width_ = 0;
  std::vector<Tensor> buffers_;
  std::vector<Pending> under_way_;  // destroyed before the buffers they read
  std::size_t written_ = 0;
  std::size_t sent_ = 0;
};

/// Whether a cell is a forward, and a backward of something else.
bool halves(std::span<const Action> cell) {
  return cell.size() > 1 && cell[0].kind == ActionKind::forward && cell[1].kind == ActionKind::backward_input &&
         (cell[0].stage != cell[1].stage || cell[0].microbatch != cell[1].microbatch);
}

}  // namespace

struct Pipeline::Slot {
  Tensor input, output_gradient;
  Pending input_arrives, gradient_arrives;  // destroyed before the tensors they write to
};

struct Pipeline::Local {
  Stage* stage = nullptr;
  int number = 0;
  bool before_is_local = false;  // the stage before, if any, is on this rank
  bool after_is_local = false;
  bool first = false;
  bool last = false;
  Outbox activations, gradients;
  std::vector<std::unique_ptr<Slot>> slots;
  std::vector<std::size_t> free_slots;
  std::vector<std::ptrdiff_t> slot_of;  // per micro-batch; -1: none
};

struct Pipeline::Computation {
  Action action;
  Slot& own;
  TensorView result;
  double waited;  // for its input
};

Pipeline::Pipeline(Schedule schedule, Communicator& communicator, std::span<Stage* const> stages,
                   const Boundary& boundary, Waiting waiting, Seconds now, Turns* turns)
    : schedule_(std::move(schedule)),
      communicator_(communicator),
      boundary_(boundary),
      waiting_(std::move(waiting)),
      owner_(rank_of_stage(schedule_)),
      forward_only_(forward_only(schedule_)),
      turns_(turns),
      now_(std::move(now)) {
  require_sound(schedule_);
  const auto ranks = static_cast<int>(schedule_.ranks.size());
  check(communicator.size() == ranks, "a schedule of {} ranks on {} of {} ranks", ranks, communicator.name(),
        communicator.size());
  locals_.resize(static_cast<std::size_t>(schedule_.stages));
  std::size_t given = 0;
  for (int number = 0; number < schedule_.stages; ++number) {
    const auto owner_at = [&](int stage) { return owner_[static_cast<std::size_t>(stage)]; };
    if (owner_at(number) != communicator.rank()) continue;
    check(given < stages.size() && stages[given] != nullptr, "rank {} has more than the {} stages given",
          communicator.rank(), stages.size());
    auto made = std::make_unique<Local>();
    made->stage = stages[given++];
    made->number = number;
    made->first = number == 0;
    made->last = number + 1 == schedule_.stages;
    made->before_is_local = !made->first && owner_at(number - 1) == communicator.rank();
    made->after_is_local = !made->last && owner_at(number + 1) == communicator.rank();
    made->slot_of.assign(static_cast<std::size_t>(schedule_.microbatches), -1);
    locals_[static_cast<std::size_t>(number)] = std::move(made);
  }
  check(given == stages.size(), "{} stages given to rank {}, which has {}", stages.size(), communicator.rank(), given);
  for (const Action& action : schedule_.ranks[static_cast<std::size_t>(communicator.rank())]) walk(action, true);

  const auto allocate = [&](Tensor& tensor) {
    tensor = Tensor(boundary_.dtype, boundary_.shape, boundary_.device);
    buffer_bytes_ += tensor.bytes();
  };
  for (const auto& at : locals_) {
    if (at == nullptr) continue;
    for (const auto& slot : at->slots) {
      if (!at->first) allocate(slot->input);
      if (!at->last && !forward_only_) allocate(slot->output_gradient);
    }
    buffer_bytes_ += at->activations.allocate(boundary_) + at->gradients.allocate(boundary_);
  }
  trace_.reserve(schedule_.ranks[static_cast<std::size_t>(communicator.rank())].size());
}

Pipeline::~Pipeline() = default;

Pipeline::Local& Pipeline::local(int stage) { return *locals_[static_cast<std::size_t>(stage)]; }

Pipeline::Slot& Pipeline::acquire(Local& local, int microbatch) {
  std::ptrdiff_t& index = local.slot_of[static_cast<std::size_t>(microbatch)];
  if (index < 0) {
    if (local.free_slots.empty()) {  // only on the dry walk
      local.free_slots.push_back(local.slots.size());
      local.slots.push_back(std::make_unique<Slot>());
    }
    index = static_cast<std::ptrdiff_t>(local.free_slots.back());
    local.free_slots.pop_back();
  }
  return slot(local, microbatch);
}

Pipeline::Slot& Pipeline::slot(Local& local, int microbatch) {
  return *local.slots[static_cast<std::size_t>(local.slot_of[static_cast<std::size_t>(microbatch)])];
}

// Where it is the last computation of a micro-batch in its stage.
void Pipeline::release_after(const Action& action) {
  if (action.kind != (forward_only_ ? ActionKind::forward : ActionKind::backward_weight)) return;
  Local& at = local(action.stage);
  std::ptrdiff_t& index = at.slot_of[static_cast<std::size_t>(action.microbatch)];
  at.free_slots.push_back(static_cast<std::size_t>(index));
  index = -1;
}

double Pipeline::steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Pipeline::wait_for(Pending& pending) {
  if (pending.empty()) return;
  const double start = seconds();
  if (waiting_) waiting_(true);
  pending.wait();
  if (waiting_) waiting_(false);
  waited_ += seconds() - start;
}

void Pipeline::run() {
  trace_.clear();
  compute_seconds_ = wait_seconds_ = waited_ = 0;
  began_ = now_();
  const std::span<const Action> list = schedule_.ranks[static_cast<std::size_t>(communicator_.rank())];
  for (std::size_t begin = 0, end = 0; begin < list.size(); begin = end) {
    for (end = begin + 1; list[end - 1].with_next;) ++end;
    const std::span<const Action> cell = list.subspan(begin, end - begin);
    if (turns_ != nullptr && halves(cell)) {
      walk_cell(cell);
    } else {
      for (const Action& action : cell) walk(action, false);
    }
  }
  for (const auto& at : locals_) {
    if (at == nullptr) continue;
    for (Outbox* box : {&at->activations, &at->gradients}) {
      for (Pending& pending : box->under_way()) wait_for(pending);
    }
  }
  wait_seconds_ += waited_;
}

void Pipeline::walk(const Action& action, bool dry) {
  if (!action.computes()) return transfer(action, dry);
  const Computation computation = ready(action, dry);
  dry ? release_after(action) : compute(computation);
}

// All that comes from elsewhere is there before either half begins, as the proof of the schedule has it.
void Pipeline::walk_cell(std::span<const Action> cell) {
  const Computation forward = ready(cell[0], false);
  const Computation backward = ready(cell[1], false);
  const auto first = [&] { compute(forward); };
  const auto second = [&] {
    compute(backward);
    for (const Action& action : cell.subspan(2)) walk(action, false);
  };
  turns_->run(first, second, now_);
}

/// Where the result goes: the neighbour's slot, the outbox, or nowhere.
TensorView Pipeline::result_of(const Action& action, bool dry) {
  Local& at = local(action.stage);
  const bool forward = action.kind == ActionKind::forward;
  if (action.kind == ActionKind::backward_weight || (forward ? at.last : at.first)) return {};
  if (forward && at.after_is_local) return acquire(local(action.stage + 1), action.microbatch).input;
  if (!forward && at.before_is_local) return slot(local(action.stage - 1), action.microbatch).output_gradient;
  Outbox& box = forward ? at.activations : at.gradients;
  if (dry) {
    box.plan_write(action.microbatch);
    return {};
  }
  wait_for(box.last_use_of_next());
  return box.write_next();
}

/// Its memory, and what it waits for.
Pipeline::Computation Pipeline::ready(const Action& action, bool dry) {
  Local& at = local(action.stage);
  Slot& own = acquire(at, action.microbatch);
  const TensorView result = result_of(action, dry);
  if (!dry && action.kind == ActionKind::forward) wait_for(own.input_arrives);
  if (!dry && action.kind == ActionKind::backward_input) wait_for(own.gradient_arrives);
  return {action, own, result, std::exchange(waited_, 0)};
}

void Pipeline::compute(const Computation& computation) {
  const auto& [action, own, result, waited] = computation;
  if (VitalSigns* const signs = communicator_.signs()) signs->act(action);
  const std::size_t entry = trace_.size();  // before it ends others may begin
  trace_.push_back({action, seconds(), 0, waited, 0});
  const double before = own_seconds();
  Stage& stage = *local(action.stage).stage;
  switch (action.kind) {
    case ActionKind::forward: stage.forward(action.microbatch, own.input, result); break;
    case ActionKind::backward_input: stage.backward_input(action.microbatch, own.output_gradient, result); break;
    default: stage.backward_weight(action.microbatch); break;
  }
  trace_[entry].own_seconds = own_seconds() - before;
  trace_[entry].end_seconds = seconds();
  compute_seconds_ += trace_[entry].own_seconds;
  wait_seconds_ += waited;
  release_after(action);
}

void Pipeline::note_message(const Action& action) {
  const double now = seconds();
  trace_.push_back({action, now, now, 0});
}

void Pipeline::transfer(const Action& action, bool dry) {
  Local& at = local(action.stage);
  const bool sends = action.kind == ActionKind::send_activation || action.kind == ActionKind::send_gradient;
  const bool upward = action.kind == ActionKind::send_activation || action.kind == ActionKind::recv_gradient;
  const int peer = owner_[static_cast<std::size_t>(upward ? action.stage + 1 : action.stage - 1)];
  if (sends) {
    Outbox& box = upward ? at.activations : at.gradients;
    if (dry) return box.plan_send(action);
    note_message(action);
    return box.send_next(communicator_, peer);
  }
  Slot& own = acquire(at, action.microbatch);
  if (dry) return;
  note_message(action);
  communicator_.group_begin();
  communicator_.recv(upward ? own.output_gradient : own.input, peer);
  (upward ? own.gradient_arrives : own.input_arrives) = communicator_.group_post();
}

}  // namespace shoestring
