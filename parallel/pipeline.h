// The pipeline runtime: executes one rank's list of a schedule over its stages.
//
// It obeys the list and nothing else, so the trace of a run matches the schedule. With one stage there is no message at
// all: F, B, W in the order listed. Messages are posted as the list says and waited for only by who needs them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/base/tensor.h"
#include "parallel/communicator.h"
#include "parallel/schedule.h"
#include "parallel/turns.h"

namespace shoestring {

/// A part of the model, cut across the layers; implemented in core. Views are empty where there is no neighbour: the
/// first stage has no input and no input gradient, the last no output and no output gradient (it computes the loss).
/// `input` and `output_gradient` stay valid until backward_weight of the same micro-batch returns; `output` and
/// `input_gradient` are overwritten by the call and not read by the stage afterwards.
class Stage {
 public:
  virtual ~Stage() = default;
  virtual void forward(int microbatch, ConstTensorView input, TensorView output) = 0;
  virtual void backward_input(int microbatch, ConstTensorView output_gradient, TensorView input_gradient) = 0;
  /// Accumulates. Calls come in micro-batch order within each stage, whatever the schedule.
  virtual void backward_weight(int microbatch) = 0;
};

/// What passes between two stages, the same everywhere: `[tokens, hidden]`; gradients have the same format.
struct Boundary {
  DType dtype = DType::f32;
  Shape shape;
  Device device;
};

struct TraceEntry {
  Action action;
  double start_seconds = 0;  ///< since `run` began; waiting excluded
  double end_seconds = 0;    ///< a message's is when it was posted
  double wait_seconds = 0;   ///< waited for its input before it started: bubble, or a message not hidden
  double own_seconds = 0;    ///< from start to end, less what the other half of its cell had of that
};

class Pipeline {
 public:
  /// Told when this rank begins to wait for a message (true) and when it goes on (false).
  using Waiting = std::function<void(bool)>;
  using Seconds = std::function<double()>;

  /// `stages` are those of this rank, in the order of their numbers. `communicator` (size = ranks of the schedule, rank
  /// = row of this rank) and the stages must outlive it. Checks the schedule; allocates all buffers. `now` is what its
  /// trace is timed by: the steady clock, unless a test holds one of its own. With `turns`, which must outlive it, the
  /// halves of a cell take turns wherever their stages pass; else one follows the other.
  Pipeline(Schedule schedule, Communicator& communicator, std::span<Stage* const> stages, const Boundary& boundary,
           Waiting waiting = {}, Seconds now = steady_seconds, Turns* turns = nullptr);
  ~Pipeline();

  /// One pass over the list: every micro-batch forward and backward, or forward only. After an exception the pipeline
  /// can only be destroyed.
  void run();

  const Schedule& schedule() const { return schedule_; }
  static double steady_seconds();

  /// Of the last run: what was done, which is the list.
  const std::vector<TraceEntry>& trace() const { return trace_; }
  /// When it began, by its clock.
  double began_seconds() const { return began_; }
  double compute_seconds() const { return compute_seconds_; }
  double wait_seconds() const { return wait_seconds_; }
  /// What the boundary tensors take.
  std::int64_t buffer_bytes() const { return buffer_bytes_; }

 private:
  struct Slot;         // the boundary tensors of one (stage, micro-batch) in flight
  struct Local;        // one stage of this rank
  struct Computation;  // one action whose inputs are there

  Local& local(int stage);
  Slot& acquire(Local& local, int microbatch);
  void release_after(const Action& action);
  Slot& slot(Local& local, int microbatch);
  void walk(const Action& action, bool dry);
  void walk_cell(std::span<const Action> cell);
  TensorView result_of(const Action& action, bool dry);
  Computation ready(const Action& action, bool dry);
  void compute(const Computation& computation);
  void transfer(const Action& action, bool dry);
  void note_message(const Action& action);
  double seconds() const { return now_() - began_; }
  double own_seconds() const { return turns_ != nullptr && turns_->running() ? turns_->own_seconds() : seconds(); }
  void wait_for(Pending& pending);

  Schedule schedule_;
  Communicator& communicator_;
  Boundary boundary_;
  Waiting waiting_;
  std::vector<int> owner_;  // rank of each stage
  bool forward_only_;
  Turns* turns_;
  std::vector<std::unique_ptr<Local>> locals_;
  std::vector<TraceEntry> trace_;
  std::int64_t buffer_bytes_ = 0;
  Seconds now_;
  double began_ = 0;
  double waited_ = 0;  // since the last computation
  double compute_seconds_ = 0;
  double wait_seconds_ = 0;
};

}  // namespace shoestring
