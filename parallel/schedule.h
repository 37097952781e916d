// A pipeline schedule is a value: for each rank the list of what it does, in order.
//
// It prints, parses, is checked (schedule_check.h), simulated, and executed as it stands (pipeline.h). Builders produce
// computation only; `with_transfers` then writes every send and receive into the lists.
//
// Text form, one line per rank:
//   schedule 1f1b stages 2 microbatches 2 ranks 2
//   0: F0.0 sa0.0 F0.1 sa0.1 rg0.0 B0.0 W0.0 ...
// An action is KIND STAGE.MICROBATCH; a trailing & says that it and the next one form one cell, whose parts may
// overlap.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

enum class ActionKind : std::uint8_t {
  forward,          ///< F: input activation -> output activation, or the loss on the last stage
  backward_input,   ///< B: output gradient -> input gradient; on the critical path
  backward_weight,  ///< W: accumulates weight gradients; any time later; ends the micro-batch's activations
  send_activation,  ///< sa: this stage's output goes to the rank of stage + 1
  recv_activation,  ///< ra: this stage's input comes from the rank of stage - 1
  send_gradient,    ///< sg: this stage's input gradient goes to the rank of stage - 1
  recv_gradient,    ///< rg: this stage's output gradient comes from the rank of stage + 1
};

struct Action {
  ActionKind kind = ActionKind::forward;
  int stage = 0;
  int microbatch = 0;
  bool with_next = false;  ///< this and the next action form one cell

  bool computes() const { return kind <= ActionKind::backward_weight; }
  bool operator==(const Action&) const = default;
};

struct Schedule {
  std::string name;
  int stages = 0;
  int microbatches = 0;
  std::vector<std::vector<Action>> ranks;

  bool operator==(const Schedule&) const = default;
};

std::string to_string(const Action& action);      // "F0.3"
std::string to_string(const Schedule& schedule);  // the text form
/// Reads the text form back; throws Error(bad_recipe) naming the line and the word.
Schedule parse_schedule(std::string_view text);

/// The rank that computes each stage; -1 where no rank does.
std::vector<int> rank_of_stage(const Schedule& schedule);
/// Whether the lists hold no backward at all.
bool forward_only(const Schedule& schedule);

struct ScheduleRequest {
  int ranks = 1;
  int microbatches = 1;
  int stages_per_rank = 1;  ///< interleaved only; the V-shaped schedules always have 2
};

/// One kind of schedule. Builders stand in one visible list.
struct ScheduleBuilder {
  std::string_view name;
  std::string (*refuses)(const ScheduleRequest&);  ///< empty when it can be built, otherwise the reason
  Schedule (*build)(const ScheduleRequest&);       ///< computation only
};
std::span<const ScheduleBuilder> schedule_builders();

/// Why the named schedule cannot be built; empty where it can. Throws Error(bad_recipe) where no schedule has the name.
std::string refusal(std::string_view name, const ScheduleRequest& request);
/// The named schedule with its transfers; throws Error(bad_recipe) with the builder's reason or the known names.
Schedule make_schedule(std::string_view name, const ScheduleRequest& request);

/// Forward passes alone, over the same stages on the same ranks, with transfers: for evaluation. Legal as it stands: a
/// schedule without any backward needs none.
Schedule forward_schedule(const Schedule& training, int microbatches);

/// Writes sends and receives into a schedule of computation only. Both ends of every message are written at the moment
/// its producer ends in a simulation with unit times, so all lists agree with one global order of messages: even ranks
/// that wait for each message in turn cannot wait in a circle.
Schedule with_transfers(const Schedule& computation);

}  // namespace shoestring
