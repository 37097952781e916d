// The pipeline runtime: executes one rank's list of a schedule over its stages.
//
// It obeys the list and nothing else, so the trace of a run matches the schedule. With one stage there is no message at
// all: F, B, W in the order listed. Messages are posted as the list says and waited for only by who needs them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/base/tensor.h"
#include "parallel/communicator.h"
#include "parallel/schedule.h"

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
  double end_seconds = 0;
  double wait_seconds = 0;   ///< waited for its input before it started: bubble, or a message not hidden
};

class Pipeline {
 public:
  /// `stages` are those of this rank, in the order of their numbers. `schedule` and `communicator` (size = ranks of the
  /// schedule, rank = row of this rank) and the stages must outlive it. Checks the schedule; allocates all buffers.
  Pipeline(const Schedule& schedule, Communicator& communicator, std::span<Stage* const> stages,
           const Boundary& boundary);

  /// One pass over the list: every micro-batch forward and backward.
  void run();

  /// Of the last run: the list's computations in order.
  const std::vector<TraceEntry>& trace() const { return trace_; }
  double compute_seconds() const { return compute_seconds_; }
  double wait_seconds() const { return wait_seconds_; }
  std::int64_t buffer_bytes() const;

 private:
  struct Slot;   // the boundary tensors of one (stage, micro-batch) in flight
  struct Local;  // one stage of this rank
  const Schedule& schedule_;
  Communicator& communicator_;
  std::vector<TraceEntry> trace_;
  double compute_seconds_ = 0;
  double wait_seconds_ = 0;
};

}  // namespace shoestring
