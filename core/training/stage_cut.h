// Where a pipeline is cut, by what its parts take: parallel.stages = measured.
//
// A model's layers are of few kinds: the first, with the embedding; dense ones; mixtures of experts; and its end, which
// is norm, output head, loss and multi-token prediction. One of each kind goes forward and backward over a made
// micro-batch as a stage of its own, the ranks sharing the kinds, and all ranks learn what each took. Times differ from
// start to start and so may the cut, which no result depends on, and no checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/transformer.h"

namespace shoestring {

/// Seconds of one micro-batch, forward and backward.
struct StageCosts {
  std::vector<double> layers;
  double end = 0;  ///< of what comes after the last layer
};

/// Collective; the same on every rank. `whole` is what each rank has a part of. A rank holds one layer at a time, with
/// all of its experts: no rows travel.
StageCosts measure_stage_costs(const TransformerOptions& whole, std::uint64_t seed, Communicator& world,
                               Stream& stream);

/// Layers of each of `stages` stages: of all cuts whose slowest stage takes least, the one with the least sum of
/// squares, and of equals the one with the shorter first stages. Each stage has a layer, but the last may have the end
/// alone.
std::vector<std::int64_t> cut_stages(const StageCosts& costs, int stages);
/// The slowest stage's time over the mean of all.
double slowest_stage(const StageCosts& costs, const std::vector<std::int64_t>& stage_layers);

/// "pipeline cut by measured time: 3 3 2 layers; its slowest stage takes 1.08 times the mean (1.31 with 3 3 2)".
std::string cut_text(const StageCosts& costs, const std::vector<std::int64_t>& measured,
                     const std::vector<std::int64_t>& even);

}  // namespace shoestring
