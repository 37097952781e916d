#include "core/training/memory_plan.h"

#include <memory>

#include "core/budget/meter.h"
#include "core/model/adapter.h"
#include "core/training/engine.h"

namespace shoestring {
namespace {

/// Of the slices that an adapter adds to.
std::int64_t merged_bytes(const Parameter& parameter, DType master) {
  std::int64_t bytes = 0;
  for (const ParameterSlice& slice : parameter.slices) {
    if (parameter.adapter->adapts(slice)) bytes += slice.rows * parameter.columns * size_bytes(master);
  }
  return bytes;
}

}  // namespace

MemoryPlan plan_memory(const Transformer& model, const Recipe& recipe, const Layout& layout, int phase) {
  MemoryPlan plan;
  plan.model = model.memory();
  const DType master = master_dtype(model.precision());
  for (const Parameter* parameter : model.parameters()) {
    if (parameter->adapter != nullptr) plan.merged += merged_bytes(*parameter, master);
  }
  DryMemory dry;
  const std::int64_t& now = dry.of(model.device_kind()).now_bytes;
  Stream stream({.kind = model.device_kind(), .dry = &dry}, model.options().run.workers);
  TransformerOptions options = model.options();
  options.experts.exchange = nullptr;
  Transformer twin(std::move(options));
  twin.allocate(stream);
  const std::int64_t before = now;
  Recipe there = recipe;
  there.optimizer.state = StateMemory::device;  // whoever has it elsewhere knows that
  const MeshShape& shape = layout.shape;
  Mesh mesh(shape, rank_at(shape, layout.at.pipeline, layout.at.data));
  const std::unique_ptr<Optimizer> optimizer = optimizer_of(there, twin, mesh, stream.worker_count());
  plan.moments = optimizer->state_bytes();
  plan.optimizer_scratch = now - before - plan.moments;
  const std::int64_t without = now;
  const int groups = reduction_groups(recipe, layout, 0);
  PhaseSpec largest = recipe.phases.at(static_cast<std::size_t>(phase));
  largest.batch_ramp_from = 0;
  Meter meter(system_clock());
  Engine engine(there, {twin, *optimizer, stream}, mesh, groups, meter, layout.schedule);
  engine.make_room({largest, groups, shape.data}, 0);
  plan.communication = now - without;
  return plan;
}

}  // namespace shoestring
