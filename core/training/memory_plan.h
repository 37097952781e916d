// What a rank of a run will hold, before it holds anything.
//
// The bytes come from a dry run (kernels/base/memory.h) of the very model, optimizer and engine that will train, at the
// rank's place in the layout and with nobody at the others: no list of them is kept by hand. Three things no step
// takes, and they are counted apart: what stands beside the weights while a checkpoint merges adapters, an evaluation
// by suites, and the messages of experts between nodes, which grow with the skew of their loads and are in no plan.
#pragma once

#include <cstdint>

#include "core/model/transformer.h"
#include "core/recipe/recipe.h"
#include "core/training/layout.h"

namespace shoestring {

/// Bytes of one rank, where its tensors lie.
struct MemoryPlan {
  ModelMemory model;
  std::int64_t moments = 0;            ///< of the optimizer
  std::int64_t optimizer_scratch = 0;  ///< what it takes besides
  std::int64_t communication = 0;      ///< sums of gradients that go round, and what passes between stages
  std::int64_t merged = 0;             ///< sums of adapters and what they add to, while a checkpoint is written
  std::int64_t suites = 0;             ///< keys, values and scratch while questions are asked; for the caller to set
  std::int64_t total() const { return model.total() + moments + optimizer_scratch + communication + merged + suites; }
};

/// Of `model`, a rank's part in `layout` with or without memory of its own, in phase `phase` of the recipe at its
/// largest batch, with the reduction groups of a first attempt. Throws as reduction_groups.
MemoryPlan plan_memory(const Transformer& model, const Recipe& recipe, const Layout& layout, int phase = 0);

}  // namespace shoestring
