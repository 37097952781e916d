// What one layer of a model takes for one micro-batch on one device of a layout: its products by shape and format, what
// else passes over memory, its messages. Nothing here knows of stages, steps or money.
#pragma once

#include <vector>

#include "core/budget/communication_cost.h"
#include "core/budget/operation_cost.h"
#include "core/budget/plan_layout.h"
#include "core/model/config.h"

namespace shoestring {

/// A model as the planner needs it: the config, and what other systems' models have that ours do not.
struct PlannedModel {
  ModelConfig config;
  bool gated = true;               ///< feed-forward of three matrices (SwiGLU); two otherwise
  bool learned_positions = false;  ///< a table of `max_positions` vectors
  double imbalance = 1;            ///< tokens of the fullest device over the mean, in a mixture of experts
};

/// Seconds of one layer, one micro-batch, one device.
struct LayerSeconds {
  double forward = 0;  ///< work, messages apart; so the next three
  double backward_input = 0;
  double backward_weight = 0;
  double again = 0;           ///< what backward computes once more
  double tensor_forward = 0;  ///< messages of tensor and context parallelism that nothing hides
  double tensor_backward = 0;
  double exchange_forward = 0;  ///< of experts; whether something hides them is the schedule's affair
  double exchange_backward = 0;

  double work() const { return forward + backward_input + backward_weight + again; }
  double messages() const { return tensor_forward + tensor_backward + exchange_forward + exchange_backward; }
  LayerSeconds& operator+=(const LayerSeconds& other);
};

struct LayerCost {
  LayerSeconds seconds;
  double flops = 0;              ///< of its products and causal attention, forward
  double attention_flops = 0;    ///< of those, the attention core's
  double parameters = 0;         ///< of this device, whatever shards them over data; experts apart
  double expert_parameters = 0;  ///< of this device
  double saved_bytes = 0;        ///< that one micro-batch leaves for backward
  double working_bytes = 0;      ///< while it runs
};

class LayerCosts {
 public:
  /// All four must outlive it. `sequence` in tokens.
  LayerCosts(const PlannedModel& model, const PrecisionSpec& precision, const PlanLayout& layout, double sequence,
             const OperationCost& operations, const CommunicationCost& messages);

  LayerCost dense() const { return block(false); }
  LayerCost mixture() const { return block(true); }
  /// Output head and loss; what multi-token prediction adds is a mixture, a join and a second head.
  LayerCost head() const;
  LayerCost join() const;
  double embedding_parameters() const;
  double tokens() const { return tokens_; }  ///< of one micro-batch on one device

 private:
  struct Part;
  LayerCost block(bool mixture) const;
  void add_attention(Part& part) const;
  void add_feed_forward(Part& part) const;
  void add_experts(Part& part) const;
  /// `saved_rows`: of the input, that this device keeps for the weight's gradient; all of them unless said.
  void add_product(Part& part, const Product& product, RateFormat format, double saved_rows = -1) const;
  void add_gated(Part& part, double rows, double inner, double count, double saved_rows) const;
  void wait_for_host(LayerSeconds& seconds) const;
  void add_passes(Part& part, double elements, double passes) const;
  void add_tensor_messages(Part& part) const;
  LayerCost finish(const Part& part) const;

  const PlannedModel& model_;
  const PlanLayout& layout_;
  const OperationCost& operations_;
  const CommunicationCost& messages_;
  double sequence_;
  double tokens_;
  double sequence_share_;  ///< of them, where the residual lies: all without sequence parallelism
  RateFormat covered_;
  RateFormat exempt_;
  double cached_bytes_;  ///< an element of what the gate's derivative needs
};

}  // namespace shoestring
