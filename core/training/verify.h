// Whether a recipe's model trains the same under every layout: a small model of its family, in its precision, with its
// optimizer, takes a few steps as one process and as the ranks of each layout, and everything is compared to the bit
// (128-bit hashes of the bytes of losses, norms, counts, gradients, weights and optimizer state, after every step).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/recipe/recipe.h"
#include "core/training/layout.h"
#include "core/training/pass.h"
#include "kernels/base/thread.h"
#include "parallel/communicator.h"

namespace shoestring {

struct VerifiedLayout {
  MeshShape shape;
  ScheduleName schedule = ScheduleName::one_f_one_b;
  bool shares_state = false;  ///< the optimizer's, along the data axis (parallel.shard_optimizer)
  std::string difference =
      {};  ///< the first step and tensor that differ, "step 2 gradient model.norm.weight"; empty: none
};

/// The recipe made small: eight layers of its architecture, few heads and experts, its precision, optimizer and
/// balancing; made tokens. Its global batch is for the layout to say. Of Muon's Newton-Schulz iterations it takes one:
/// they turn a matrix that is whole on the rank that moves it, by the same products each time, so that what a layout
/// could change shows in the first; five would add nearly half to the time of a step.
Recipe small_twin(const Recipe& recipe);

/// A line of what is trained in a recipe's place, and in what it is less: "tiny_moe in small: deepseek_v3, ...".
std::string small_twin_text(const Recipe& recipe);

/// The layouts of at most `most_ranks` ranks that verify_layouts runs: pipelines of 1, 2 and 4, data axes of 1, 2 and
/// 4, every schedule, and where the recipe has experts every way to share them out; each shape with a data axis once
/// more with the optimizer's state shared. Without differences.
std::vector<VerifiedLayout> layouts_to_verify(const Recipe& recipe, int most_ranks);

/// What a test does wrong on purpose to the ranks of a layout, to see that it is found.
struct Tampering {
  std::int64_t wrong_sample = -1;  ///< the last rank trains on the sample after this one in its place
  /// After each step, with what the rank has then.
  std::function<void(const Layout& layout, const PassResult& batch, Transformer& model)> after_step = {};
  ThreadMaker make = make_thread;  ///< of ranks that are threads
};

/// Runs `steps` steps of small_twin(recipe) as one process and under each of `layouts`, and tells `done` of each. Ranks
/// are threads of this process; in a `world` of several ranks, these, and no layout has more: collective, rank 0 tells
/// and knows all. Throws what is wrong with the recipe, and Error(io) with the limits to look at where a rank's thread
/// cannot be made; those begun have ended then. Where a rank was asked to leave
/// (signals.h), all do before the next step: Error(preempted).
std::vector<VerifiedLayout> verify_layouts(const Recipe& recipe, int steps, std::vector<VerifiedLayout> layouts,
                                           Communicator& world,
                                           const std::function<void(const VerifiedLayout&)>& done = {},
                                           const Tampering& tampering = {});

}  // namespace shoestring
