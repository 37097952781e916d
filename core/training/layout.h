// Where a rank stands: its place on the axes of the mesh, the stages of the model it holds, the schedule it obeys, and
// which share of every batch is its own. Built once, from the recipe and the launch.
//
// The ranks of one data index are a pipeline: they hold the model together, draw the same micro-batches, and pass
// activations on. Which stages a rank holds is the schedule's affair: one (1f1b, zb_h1), every p-th (interleaved), or
// two folded into a V (zb_v, dualpipev).
//
// Neighbours on the data axis may share the experts of their stages: each holds a part of them, and tokens go to where
// their experts are. They pass every layer together, so each of them has as many micro-batches in a reduction group.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/model/transformer.h"
#include "core/recipe/recipe.h"
#include "parallel/mesh.h"
#include "parallel/schedule.h"

namespace shoestring {

/// Which schedule runs between the ranks of a pipeline.
struct ScheduleChoice {
  ScheduleName name = ScheduleName::one_f_one_b;  ///< not automatic
  int stages_per_rank = 1;

  bool operator==(const ScheduleChoice&) const = default;
};

/// The lists of `ranks` ranks; throws Error(bad_recipe) as make_schedule.
Schedule make_schedule(const ScheduleChoice& choice, int ranks, int microbatches);

struct Layout {
  MeshShape shape;
  MeshCoordinates at;
  ScheduleChoice schedule;                 ///< between the stages: with a single one it says nothing
  std::vector<std::int64_t> stage_layers;  ///< of the whole model: layers of each stage; as even as
                                           ///< they divide where they are yet to be measured (stage_cut.h)
  std::vector<int> stages;                 ///< of this rank, in the order of the model
  std::vector<int> in_flight;              ///< micro-batches that each of them holds at most

  int stage_count() const { return static_cast<int>(stage_layers.size()); }
  bool operator==(const Layout&) const = default;
};

/// Throws Error(bad_recipe), the same on every rank: `ranks` were launched and the recipe counts on others, in which
/// case the layouts that fit are listed; the stages are more than the layers, or not as many as parallel.stages lists;
/// the schedule does not run with so few micro-batches; or the experts cannot be shared out.
Layout layout_of(const Recipe& recipe, int rank, int ranks);

/// What ranks that share experts exchange rows through; null where they do not. `ranks_per_node` as ExpertExchange.
/// `mesh`, of this layout, must outlive it.
std::unique_ptr<ExpertExchange> exchange_of(const Layout& layout, Mesh& mesh, const ModelConfig& model,
                                            int ranks_per_node = 0);
/// Whether the halves of a cell take turns: where its schedule has cells, and experts are elsewhere.
bool takes_turns(const Layout& layout);
/// The part of a model that a rank has in this layout.
TransformerOptions part_of(TransformerOptions whole, const Layout& layout, ExpertExchange* exchange);

/// Groups of the canonical reduction over the data axis: those of the run's first attempt (`first`, 0: this is it), or
/// the recipe's, or one for each place on the axis. Throws Error(bad_recipe) where the axis cannot share them evenly,
/// a phase has fewer micro-batches a step, they do not divide evenly between ranks that share experts, or the schedule
/// does not run with those of a group.
int reduction_groups(const Recipe& recipe, const Layout& layout, int first);

/// How far a token's rows may go where the experts of a layer lie on `nodes`: "experts on 4 nodes, a token's rows on 2
/// of them at most: it chooses 2 of 4 groups, each whole on a node"; and what to change where groups straddle nodes.
/// Empty on one node.
std::string reach_text(const ModelConfig& model, int nodes);

/// "rank 1 of 2: data 1 of 2, the whole model"; "rank 5 of 8: data 1 of 4, stage 1+2 of 4 (zb_v), experts 1 of 2".
std::string to_string(const Layout& layout);

}  // namespace shoestring
