#include "core/training/phase.h"

namespace shoestring {

Phase::Phase(const Recipe& recipe, RunResources& resources, Mesh& mesh, const Layout& layout,
             const TrainingState& state)
    : plan_(recipe.phases.at(static_cast<std::size_t>(state.phase)), state.reduction_groups, mesh.shape().data),
      loader_(resources.train_loader(state.phase)) {
  if (!state.data_plan.empty()) loader_->check_plan(state.data_plan);
  feed_ = std::make_unique<LoaderFeed>(*loader_, plan_, state.phase_samples, mesh.at().data, recipe.data.prefetch);
  std::vector<std::unique_ptr<Loader>> held_out = resources.validation_loaders(state.phase);
  if (held_out.empty()) return;
  evaluator_ = std::make_unique<Evaluator>(resources.model(), mesh, std::move(held_out), recipe.evaluation,
                                           plan_.phase().micro_batch, layout.schedule);
}

}  // namespace shoestring
