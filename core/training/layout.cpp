#include "core/training/layout.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "core/model/node_reach.h"
#include "core/model/transformer.h"
#include "core/recipe/names.h"
#include "core/recipe/units.h"
#include "core/recipe/validate.h"
#include "core/training/batch_plan.h"
#include "kernels/base/check.h"
#include "parallel/schedule_check.h"

namespace shoestring {
namespace {

/// Two stages a rank where the model has so many layers: no other schedule has a smaller bubble at 1F1B's memory.
ScheduleChoice schedule_of(const ParallelSpec& parallel, std::int64_t layers) {
  if (parallel.pipeline == 1) return {};
  switch (parallel.schedule) {
    case ScheduleName::automatic: {
      const std::size_t cut = stages_are_measured(parallel) ? 0 : parallel.stages.size();
      const auto ranks = static_cast<std::size_t>(parallel.pipeline);
      const bool folds = cut > 0 ? cut == 2 * ranks : layers >= 2 * parallel.pipeline;
      return folds ? ScheduleChoice{ScheduleName::zb_v, 2} : ScheduleChoice{ScheduleName::zb_h1, 1};
    }
    case ScheduleName::interleaved: return {ScheduleName::interleaved, parallel.stages_per_rank};
    case ScheduleName::zb_v:
    case ScheduleName::dualpipev: return {parallel.schedule, 2};
    default: return {parallel.schedule, 1};
  }
}

std::vector<std::int64_t> layers_of_stages(const ParallelSpec& parallel, std::int64_t layers, int stages) {
  std::vector<std::int64_t> result;
  const bool listed = !parallel.stages.empty() && !stages_are_measured(parallel);
  for (const std::string& text : parallel.stages) {
    if (listed) result.push_back(parse_whole(text, Unit::none).value);
  }
  if (result.empty()) {
    for (int stage = 0; stage < stages; ++stage) {
      const StageBlocks blocks = stage_blocks(layers, stages, stage);
      result.push_back(blocks.end - blocks.begin);
    }
  }
  if (static_cast<int>(result.size()) != stages) {
    fail(ExitCode::bad_recipe, "parallel.stages lists {} stages, but {} ranks of the pipeline have {}", result.size(),
         parallel.pipeline, stages);
  }
  if (!listed && layers < stages) {
    fail(ExitCode::bad_recipe,
         "parallel.pipeline = {} makes {} stages, but the model has {} layers; take a shorter pipeline, or a schedule "
         "of one stage a rank (1f1b, zb_h1)",
         parallel.pipeline, stages, layers);
  }
  return result;
}

/// "2", "2 or 4", "2, 4 or 8".
std::string listed(const std::vector<std::int64_t>& values) {
  std::string text;
  for (std::size_t i = 0; i < values.size(); ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : i + 1 == values.size() ? " or " : ", ", values[i]);
  }
  return text;
}

/// Into how many equal parts of neighbouring ranks `data` places on the axis can share out the experts: 1 is none.
std::vector<std::int64_t> expert_axes(const Recipe& recipe, std::int64_t data) {
  std::vector<std::int64_t> axes;
  for (std::int64_t axis = 1; axis <= data; ++axis) {
    if (data % axis == 0 && (axis == 1 || (recipe.model.experts > 0 && recipe.model.experts % axis == 0))) {
      axes.push_back(axis);
    }
  }
  return axes;
}

/// "pipeline 1 x data 8, pipeline 2 x data 4": what `ranks` can be with this recipe's other keys, and with which
/// parallel.expert if it has one.
std::string fitting_layouts(const Recipe& recipe, int ranks) {
  std::string list;
  for (int pipeline = 1; pipeline <= ranks; ++pipeline) {
    if (ranks % pipeline != 0 || (pipeline > 1 && pipeline > recipe.model.layers)) continue;
    const int data = ranks / pipeline;
    const bool fed = std::all_of(recipe.phases.begin(), recipe.phases.end(), [&](const PhaseSpec& phase) {
      return phase.micro_batch > 0 && phase.global_batch / phase.micro_batch >= data;
    });
    if (!fed) continue;
    list += fmt::format("{}pipeline {} x data {}", list.empty() ? "" : ", ", pipeline, data);
    if (recipe.parallel.expert > 1) list += fmt::format(" (expert {})", listed(expert_axes(recipe, data)));
  }
  return list.empty() ? "none" : list;
}

// The launcher says how many ranks there are. A recipe that counts on another number is refused before it costs
// anything.
void check_ranks(const Recipe& recipe, int ranks) {
  const ParallelSpec& parallel = recipe.parallel;
  const int wanted = parallel.data * parallel.pipeline;
  const bool fits = wanted == 0 ? ranks % parallel.pipeline == 0 : wanted == ranks;
  if (fits) return;
  const std::string launched = fmt::format("the run was launched on {} rank{}", ranks, ranks == 1 ? "" : "s");
  const std::string others =
      fmt::format("layouts of {} rank{}: {}", ranks, ranks == 1 ? "" : "s", fitting_layouts(recipe, ranks));
  if (wanted == 0) {
    fail(ExitCode::bad_recipe, "parallel.pipeline = {}, but {}; launch a multiple of {}, or change the recipe ({})",
         parallel.pipeline, launched, parallel.pipeline, others);
  }
  fail(
      ExitCode::bad_recipe,
      "parallel.data = {}{}, but {}; launch it with mpirun -n {}, or leave parallel.data out to train on all there are "
      "({})",
      parallel.data, parallel.pipeline > 1 ? fmt::format(" and parallel.pipeline = {}", parallel.pipeline) : "",
      launched, wanted, others);
}

void check_experts(const Recipe& recipe, int ranks) {
  const int expert = recipe.parallel.expert;
  const std::int64_t experts = recipe.model.experts;
  if (expert == 1) return;
  if (experts == 0)
    fail(ExitCode::bad_recipe, "parallel.expert = {}, but the model has no experts: leave it out", expert);
  const int data = ranks / recipe.parallel.pipeline;
  if (experts % expert == 0 && data % expert == 0) return;
  fail(ExitCode::bad_recipe,
       "parallel.expert = {} shares the {} experts of a layer out to the {} ranks of the data axis, and must divide "
       "both: {}; layouts of {} rank{}: {}",
       expert, experts, data, listed(expert_axes(recipe, data)), ranks, ranks == 1 ? "" : "s",
       fitting_layouts(recipe, ranks));
}

/// Micro-batches that one reduction group may have.
std::set<int> group_lengths(const Recipe& recipe, int groups) {
  std::set<int> lengths;
  for (const PhaseSpec& phase : recipe.phases) {
    const BatchPlan plan(phase, groups, groups);
    const std::int64_t least = plan.fewest_microbatches(0);
    const std::int64_t most = phase.global_batch / phase.micro_batch;
    for (std::int64_t length = std::max<std::int64_t>(1, least); length <= (most + groups - 1) / groups; ++length) {
      lengths.insert(static_cast<int>(length));
    }
  }
  return lengths;
}

/// The longest lists are not always those that hold the most: short ones have no steady part.
std::vector<int> most_in_flight(const Recipe& recipe, const Layout& layout) {
  std::vector<int> most(layout.stages.size(), 1);
  if (layout.shape.pipeline == 1) return most;
  const std::set<int> lengths = group_lengths(recipe, layout.shape.data);
  const int steady = 6 * layout.shape.pipeline;  // from here on nothing changes but the length
  for (const int length : lengths) {
    if (length > steady && length != *lengths.rbegin()) continue;
    const ScheduleRequest request{layout.shape.pipeline, length, layout.schedule.stages_per_rank};
    if (!refusal(word(layout.schedule.name), request).empty()) continue;  // reduction_groups says so
    const std::vector<int> peaks = peak_of_stages(make_schedule(layout.schedule, layout.shape.pipeline, length));
    for (std::size_t i = 0; i < most.size(); ++i) {
      most[i] = std::max(most[i], peaks[static_cast<std::size_t>(layout.stages[i])]);
    }
  }
  return most;
}

}  // namespace

Schedule make_schedule(const ScheduleChoice& choice, int ranks, int microbatches) {
  return make_schedule(word(choice.name), {ranks, microbatches, choice.stages_per_rank});
}

Layout layout_of(const Recipe& recipe, int rank, int ranks) {
  const ParallelSpec& parallel = recipe.parallel;
  check_ranks(recipe, ranks);
  check_experts(recipe, ranks);
  const std::int64_t layers = recipe.model.layers;
  Layout layout;
  layout.shape = {.data = ranks / parallel.pipeline, .pipeline = parallel.pipeline, .expert = parallel.expert};
  check_mesh(layout.shape, ranks);
  layout.at = coordinates_of(layout.shape, rank);
  layout.schedule = schedule_of(parallel, layers);
  const int stages = parallel.pipeline * layout.schedule.stages_per_rank;
  layout.stage_layers =
      parallel.pipeline == 1 ? std::vector<std::int64_t>{layers} : layers_of_stages(parallel, layers, stages);
  const int p = parallel.pipeline;
  const int own = layout.at.pipeline;
  const bool folded = layout.schedule.name == ScheduleName::zb_v || layout.schedule.name == ScheduleName::dualpipev;
  for (int chunk = 0; chunk < layout.schedule.stages_per_rank; ++chunk) {
    layout.stages.push_back(folded && chunk == 1 ? 2 * p - 1 - own : chunk * p + own);
  }
  layout.in_flight = most_in_flight(recipe, layout);
  return layout;
}

std::unique_ptr<ExpertExchange> exchange_of(const Layout& layout, Mesh& mesh, const ModelConfig& model,
                                            int ranks_per_node) {
  if (layout.shape.expert == 1) return nullptr;
  return std::make_unique<ExpertExchange>(mesh.expert(), model.experts, ranks_per_node);
}

bool takes_turns(const Layout& layout) {
  return layout.shape.expert > 1 && layout.shape.pipeline > 1 && layout.schedule.name == ScheduleName::dualpipev;
}

TransformerOptions part_of(TransformerOptions whole, const Layout& layout, ExpertExchange* exchange) {
  whole.stages = layout.stage_count();
  whole.stage_layers = layout.stage_layers;
  whole.own_stages = layout.stages;
  whole.in_flight = layout.in_flight;
  whole.experts = {
      .ranks = layout.shape.expert, .rank = layout.at.expert, .exchange = exchange, .takes_turns = takes_turns(layout)};
  return whole;
}

namespace {

/// Ranks that share experts pass every layer together.
void check_even_groups(const Recipe& recipe, int groups) {
  for (const PhaseSpec& phase : recipe.phases) {
    const std::int64_t unit = phase.micro_batch * groups;
    if (phase.global_batch % unit == 0) continue;
    const std::int64_t less = phase.global_batch / unit * unit;
    fail(ExitCode::bad_recipe,
         "phase {}: {} micro-batches per step do not divide evenly over {} reduction groups, as parallel.expert = {} "
         "needs, whose ranks work together; take a global_batch of {} or {}, or a parallel.reduction_groups that "
         "divides",
         phase.name, phase.global_batch / phase.micro_batch, groups, recipe.parallel.expert, less, less + unit);
  }
}

/// What to launch, or what these ranks can be, so that the data axis shares `groups` evenly.
std::string uneven_groups_text(const Recipe& recipe, const MeshShape& shape, int groups) {
  std::vector<std::int64_t> launches;
  for (int data = 1; data <= groups; ++data) {
    if (groups % data == 0 && data % shape.expert == 0) launches.push_back(std::int64_t{data} * shape.pipeline);
  }
  std::string ways = launches.empty() ? "" : fmt::format("launch {} ranks, or ", listed(launches));
  for (int data = shape.data; data >= 1; --data) {
    const int pipeline = shape.ranks() / data;
    if (shape.ranks() % data != 0 || groups % data != 0 || pipeline > recipe.model.layers) continue;
    const bool fits = data % shape.expert == 0;
    ways += fmt::format("set parallel.pipeline = {}{}, or ", pipeline,
                        fits ? "" : fmt::format(" and parallel.expert = {}", listed(expert_axes(recipe, data))));
  }
  return fmt::format(
      "a data axis of {} (of {} rank{}, parallel.pipeline = {}) cannot share {} reduction groups evenly, whose number "
      "is fixed when a run begins; {}begin a new run with a parallel.reduction_groups that is a multiple of {}",
      shape.data, shape.ranks(), shape.ranks() == 1 ? "" : "s", shape.pipeline, groups, ways, shape.data);
}

}  // namespace

int reduction_groups(const Recipe& recipe, const Layout& layout, int first) {
  const int places = layout.shape.data;
  const int wanted = recipe.parallel.reduction_groups;
  const int groups = first > 0 ? first : wanted > 0 ? wanted : places;
  if (groups % places != 0) {
    fail(ExitCode::bad_recipe, "{}", uneven_groups_text(recipe, layout.shape, groups));
  }
  for (const PhaseSpec& phase : recipe.phases) {
    const std::int64_t microbatches = phase.global_batch / phase.micro_batch;
    if (microbatches < groups) {
      fail(ExitCode::bad_recipe,
           "phase {}: {} micro-batches per step are fewer than the {} reduction groups: raise its global_batch",
           phase.name, microbatches, groups);
    }
  }
  if (layout.shape.expert > 1) check_even_groups(recipe, groups);
  if (layout.shape.pipeline == 1) return groups;
  for (const int length : group_lengths(recipe, groups)) {
    const std::string reason =
        refusal(word(layout.schedule.name), {layout.shape.pipeline, length, layout.schedule.stages_per_rank});
    if (reason.empty()) continue;
    fail(ExitCode::bad_recipe,
         "parallel.schedule = {} on {} ranks does not run with the {} micro-batches of a reduction group: {}; take a "
         "larger global batch, fewer reduction groups, or 1f1b, zb_h1 or zb_v, which run with any number",
         word(layout.schedule.name), layout.shape.pipeline, length, reason);
  }
  return groups;
}

std::string reach_text(const ModelConfig& model, int nodes) {
  if (nodes <= 1) return {};
  const std::int64_t groups = model.expert_groups;
  const std::string most =
      fmt::format("experts on {} nodes, a token's rows on {} of them at most", nodes, most_nodes(model, nodes));
  if (model.expert_topk_groups == groups) {
    return most + "; model.expert_topk_groups below model.expert_groups would limit them";
  }
  const std::string chosen = fmt::format("it chooses {} of {} groups", model.expert_topk_groups, groups);
  if (!groups_straddle(model, nodes)) return fmt::format("{}: {}, each whole on a node", most, chosen);
  return fmt::format(
      "{}: {}, and groups straddle nodes; a model.expert_groups that is a multiple of {} would limit nodes as it "
      "limits "
      "groups",
      most, chosen, nodes);
}

std::string to_string(const Layout& layout) {
  std::string stages;
  for (const int stage : layout.stages) stages += fmt::format("{}{}", stages.empty() ? "stage " : "+", stage);
  const MeshShape& shape = layout.shape;
  const std::string experts =
      shape.expert == 1 ? "" : fmt::format(", experts {} of {}", layout.at.expert, shape.expert);
  return fmt::format("rank {} of {}: data {} of {}, {}{}", rank_at(shape, layout.at.pipeline, layout.at.data),
                     shape.ranks(), layout.at.data, shape.data,
                     layout.stage_count() == 1
                         ? "the whole model"
                         : fmt::format("{} of {} ({})", stages, layout.stage_count(), word(layout.schedule.name)),
                     experts);
}

}  // namespace shoestring
