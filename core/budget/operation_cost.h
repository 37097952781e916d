// What one operation takes on one device: a product is bound by arithmetic or by memory, everything else by memory.
//
// Two kinds of figures meet here. What a device can do is in its file (hardware.h). How much of that a body of software
// draws out is a Stack: how well its attention is written, how often its small operations pass over memory, what its
// launches cost. Few numbers, the same for every model, shape and device count.
#pragma once

#include <span>
#include <string_view>

#include "core/budget/hardware.h"

namespace shoestring {

/// A product of an [m, k] and a [k, n] matrix, `count` times over.
struct Product {
  double m = 0;
  double n = 0;
  double k = 0;
  double count = 1;

  double flops() const { return 2 * m * n * k * count; }
};

struct Stack {
  std::string_view name;
  std::string_view source;           ///< where its figures come from
  double product_share = 1;          ///< of the hardware's rate of products, on devices that multiply in FP8 ...
  double older_product_share = 1;    ///< ... and on those that do not
  double attention_share = 1;        ///< of that rate, in the fused attention core
  bool scores_in_memory = false;     ///< attention writes its scores out and softmax passes over them
  double hidden_passes = 0;          ///< over [tokens, hidden] in BF16, of one layer, forward; twice that backward
  double feed_forward_passes = 0;    ///< the same over [tokens, feed_forward]
  double loss_bytes = 0;             ///< per logit, forward and backward
  double quantise_bytes = 0;         ///< per element that a product reads in FP8, one direction
  double launch_seconds = 0;         ///< that no work hides, per layer, forward; twice that backward
  double mixture_host_seconds = 0;   ///< of the host, to launch a mixture's layer forward and backward
  bool dispatches_fp8 = true;        ///< tokens go to their experts in FP8 where products are; in BF16 otherwise
  double sharding_interference = 0;  ///< of a full shard's messages, what they take from the work they hide behind
  double tensor_exposed = 1;         ///< of tensor parallelism's messages, what no product hides
  double gradient_exposed = 1;       ///< of the gradient reduction, what no backward pass hides
};

/// In one visible list: "eager" (PyTorch FSDP of 2023), "megatron_2022" (Korthikanti et al.), "fused" (Transformer
/// Engine and its like, and ours), "mixture_graphs" and "mixture_launches" (mixtures in Megatron-Core, with and without
/// graphs that spare the host their launches).
std::span<const Stack> stacks();
/// Throws Error(bad_data) that lists the names.
const Stack& stack_named(std::string_view name);

class OperationCost {
 public:
  /// Both must outlive it. Throws Error(bad_recipe) where the hardware does not say how fast its memory is.
  OperationCost(const Hardware& hardware, const Stack& stack);

  /// Throws Error(bad_recipe) where the hardware does not multiply in `format`.
  double product_seconds(const Product& product, RateFormat format) const;
  /// The fused core of attention over `flops`.
  double attention_seconds(double flops) const;
  double traffic_seconds(double bytes) const;

  const Hardware& hardware() const { return hardware_; }
  const Stack& stack() const { return stack_; }

 private:
  double rate(RateFormat format) const;

  const Hardware& hardware_;
  const Stack& stack_;
  double memory_rate_;
};

}  // namespace shoestring
