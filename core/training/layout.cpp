#include "core/training/layout.h"

#include <fmt/core.h>

#include "core/recipe/names.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

// The launcher says how many ranks there are. A recipe that counts on another number is refused before it costs
// anything.
void check_ranks(const ParallelSpec& parallel, int ranks) {
  const int wanted = parallel.data;
  if (wanted == 0 || wanted == ranks) return;
  fail(ExitCode::bad_recipe,
       "parallel.data = {}, but the run was launched on {} rank{}; launch it with mpirun -n {}, or leave parallel.data "
       "out to train on all there are",
       wanted, ranks, ranks == 1 ? "" : "s", wanted);
}

void check_axes(const ParallelSpec& parallel) {
  if (parallel.pipeline == 1 && parallel.expert == 1) return;
  fail(ExitCode::bad_recipe, "parallel.pipeline = {} and parallel.expert = {} are not available yet: only 1",
       parallel.pipeline, parallel.expert);
}

}  // namespace

Layout layout_of(const Recipe& recipe, int rank, int ranks) {
  const ParallelSpec& parallel = recipe.parallel;
  check_axes(parallel);
  check_ranks(parallel, ranks);
  Layout layout;
  layout.shape = {.data = ranks / parallel.pipeline, .pipeline = parallel.pipeline, .expert = parallel.expert};
  check_mesh(layout.shape, ranks);
  layout.at = coordinates_of(layout.shape, rank);
  layout.schedule = parallel.schedule;
  layout.stage_count = parallel.pipeline;
  layout.stages = {layout.at.pipeline};
  return layout;
}

int reduction_groups(const Recipe& recipe, const Layout& layout, int first) {
  const int places = layout.shape.data;
  const int wanted = recipe.parallel.reduction_groups;
  const int groups = first > 0 ? first : wanted > 0 ? wanted : places;
  if (groups % places != 0) {
    fail(ExitCode::bad_recipe,
         "{} ranks cannot share {} reduction groups evenly; launch a number of ranks that divides "
         "{}, or begin a new run with another parallel.reduction_groups",
         places, groups, groups);
  }
  for (const PhaseSpec& phase : recipe.phases) {
    const std::int64_t microbatches = phase.global_batch / phase.micro_batch;
    if (microbatches < groups) {
      fail(ExitCode::bad_recipe, "phase {}: {} micro-batches per step are fewer than the {} reduction groups",
           phase.name, microbatches, groups);
    }
  }
  return groups;
}

std::string to_string(const Layout& layout) {
  std::string stages;
  for (const int stage : layout.stages) stages += fmt::format("{}{}", stages.empty() ? "stage " : "+", stage);
  const MeshShape& shape = layout.shape;
  return fmt::format("rank {} of {}: data {} of {}, {}", rank_at(shape, layout.at.pipeline, layout.at.data),
                     shape.ranks(), layout.at.data, shape.data,
                     layout.stage_count == 1
                         ? "the whole model"
                         : fmt::format("{} of {} ({})", stages, layout.stage_count, word(layout.schedule)));
}

}  // namespace shoestring
