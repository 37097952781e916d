// Not for users of schedules: the builders that schedule.cpp lists, one file each, and how they write a rank's list.
#pragma once

#include <initializer_list>

#include "parallel/schedule.h"

namespace shoestring {

std::string refuses_1f1b(const ScheduleRequest& request);
Schedule build_1f1b(const ScheduleRequest& request);
std::string refuses_interleaved(const ScheduleRequest& request);
Schedule build_interleaved(const ScheduleRequest& request);
std::string refuses_zb_h1(const ScheduleRequest& request);
Schedule build_zb_h1(const ScheduleRequest& request);
std::string refuses_zb_v(const ScheduleRequest& request);
Schedule build_zb_v(const ScheduleRequest& request);
std::string refuses_dualpipev(const ScheduleRequest& request);
Schedule build_dualpipev(const ScheduleRequest& request);

/// Writes the list of one rank that holds a few chunks (stages), each counting its own micro-batches: `forward(1)` is
/// the next forward of chunk 1. Weight gradients wait in one queue, first in first out, or are done with their input
/// gradient. Micro-batches past the last are left out, so that a builder may write its full pattern.
class RankList {
 public:
  RankList(std::vector<int> stages, int microbatches)
      : stages_(std::move(stages)),
        microbatches_(microbatches),
        forwards_(stages_.size()),
        backwards_(stages_.size()) {}

  void forward(std::size_t chunk) { add(ActionKind::forward, chunk, forwards_[chunk]++); }
  /// B only; its W goes to the queue.
  void backward_input(std::size_t chunk) {
    const int microbatch = backwards_[chunk]++;
    add(ActionKind::backward_input, chunk, microbatch);
    if (microbatch < microbatches_) queue_.push_back({ActionKind::backward_weight, stages_[chunk], microbatch});
  }
  /// The oldest W of the queue, if any.
  void backward_weight() {
    if (queue_.empty()) return;
    actions_.push_back(queue_.front());
    queue_.erase(queue_.begin());
  }
  /// B with its own W.
  void backward(std::size_t chunk) {
    const int microbatch = backwards_[chunk]++;
    add(ActionKind::backward_input, chunk, microbatch);
    add(ActionKind::backward_weight, chunk, microbatch);
  }
  /// F of one chunk and B, W of another, whose parts may overlap.
  void cell(std::size_t forward_chunk, std::size_t backward_chunk) {
    const std::size_t first = actions_.size();
    forward(forward_chunk);
    backward(backward_chunk);
    for (std::size_t i = first; i + 1 < actions_.size(); ++i) actions_[i].with_next = true;
  }
  void flush_weights() {
    while (!queue_.empty()) backward_weight();
  }

  int forwards(std::size_t chunk) const { return forwards_[chunk]; }
  int backwards(std::size_t chunk) const { return backwards_[chunk]; }
  int weights_waiting() const { return static_cast<int>(queue_.size()); }
  bool forwards_left(std::size_t chunk) const { return forwards_[chunk] < microbatches_; }
  bool backwards_left(std::size_t chunk) const { return backwards_[chunk] < microbatches_; }
  std::vector<Action> take() { return std::move(actions_); }

 private:
  void add(ActionKind kind, std::size_t chunk, int microbatch) {
    if (microbatch < microbatches_) actions_.push_back({kind, stages_[chunk], microbatch});
  }

  std::vector<int> stages_;
  int microbatches_;
  std::vector<int> forwards_, backwards_;
  std::vector<Action> queue_;
  std::vector<Action> actions_;
};

}  // namespace shoestring
