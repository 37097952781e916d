// How a model lies on devices, as far as cost goes: also in ways that this runtime does not offer, so that other
// systems' runs can be foretold.
#pragma once

#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace shoestring {

/// What a data-parallel rank keeps only its share of.
enum class Sharding { none, optimizer, full };
/// Selective: what is large and cheap to make again: the gate's product, the heads that latents make, scores where the
/// attention core writes them out (arXiv 2205.05198, section 4; 2412.19437, section 3.2.3; 2407.21783, section 3.3.2).
enum class Recompute { none, selective, full };

struct PlanLayout {
  int devices = 1;
  int tensor = 1;
  bool sequence_parallel = true;  ///< with tensor > 1: norms and residuals on shares of the sequence
  int context = 1;                ///< sequences cut over that many devices
  int pipeline = 1;
  int chunks = 1;  ///< stages of one rank, interleaved schedule only
  int expert = 1;
  Sharding sharding = Sharding::optimizer;
  Recompute recompute = Recompute::none;
  ScheduleName schedule = ScheduleName::one_f_one_b;
  int micro_batch = 1;    ///< sequences
  int micro_batches = 1;  ///< of one data rank a step

  int data() const { return devices / (tensor * context * pipeline); }
  bool operator==(const PlanLayout&) const = default;
};

/// "data 128, pipeline 16 (dualpipev), expert 64, full recomputation"; axes of 1 are left out.
std::string to_string(const PlanLayout& layout);

/// Reads "pipeline=16 expert=64 schedule=dualpipev recompute=full" over `base`; words are parted by blanks or commas.
/// Throws Error(usage) that says which word is wrong and which there are.
PlanLayout parse_layout(std::string_view text, PlanLayout base);

}  // namespace shoestring
