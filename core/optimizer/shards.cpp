#include "core/optimizer/shards.h"

#include <algorithm>
#include <functional>
#include <ranges>

#include "core/optimizer/muon.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

struct Unit {
  ShardRange range;  ///< from the region's beginning on
  std::int64_t moments = 0;
};

/// In order; the gap behind a parameter belongs to its last unit.
std::vector<Unit> units_of(const StorePlan& plan, StoreRegion region, OptimizerName optimizer) {
  std::vector<Unit> units;
  for (std::size_t i = 0; i < plan.parameters.size(); ++i) {
    const Parameter& parameter = *plan.parameters[i];
    const std::int64_t offset = plan.offsets[i] - region.begin;
    if (offset < 0 || offset >= region.elements()) continue;
    const bool whole = moved_by_muon(optimizer, parameter);
    for (const ParameterSlice& slice : parameter.slices) {
      const std::int64_t elements = slice.rows * parameter.columns;
      const std::int64_t step = whole ? std::max<std::int64_t>(1, elements) : kPieceElements;
      for (std::int64_t at = 0; at < elements; at += step) {
        const std::int64_t begin = offset + slice.begin * parameter.columns + at;
        units.push_back({{begin, begin, 0}, (whole ? 1 : 2) * std::min(step, elements - at)});
      }
    }
  }
  std::int64_t end = region.elements();
  for (Unit& unit : std::views::reverse(units)) {
    unit.range.end = end;
    end = unit.range.begin;
  }
  return units;
}

ShardLayout deal(const StorePlan& plan, StoreRegion region, OptimizerName optimizer, int ranks) {
  std::vector<Unit> units = units_of(plan, region, optimizer);
  std::vector<Unit*> order;
  for (Unit& unit : units) order.push_back(&unit);
  std::ranges::stable_sort(order, std::greater(), &Unit::moments);
  std::vector<std::int64_t> loads(static_cast<std::size_t>(ranks), 0);
  std::vector<ShardRange> ranges;
  for (Unit* unit : order) {
    const auto least = std::ranges::min_element(loads);
    *least += unit->moments;
    unit->range.owner = static_cast<int>(least - loads.begin());
  }
  for (const Unit& unit : units) ranges.push_back(unit.range);
  return ShardLayout(ranges, ranks);
}

/// What `rank` has of the region in `layout`.
void add_parts(const StorePlan& plan, StoreRegion region, const ShardLayout& layout, int rank,
               std::vector<ParameterPart>& parts) {
  for (std::size_t i = 0; i < plan.parameters.size(); ++i) {
    const std::int64_t offset = plan.offsets[i] - region.begin;
    if (offset < 0 || offset >= region.elements()) continue;
    for (const ShardRange& range : layout.ranges()) {
      const std::int64_t begin = std::max(range.begin, offset);
      const std::int64_t end = std::min(range.end, offset + plan.parameters[i]->elements());
      if (begin < end && range.owner == rank) parts.push_back({plan.parameters[i], begin - offset, end - begin});
    }
  }
}

}  // namespace

std::vector<ParameterPart> whole_parts(const std::vector<Parameter*>& parameters) {
  std::vector<ParameterPart> parts;
  for (Parameter* parameter : parameters) parts.push_back({parameter, 0, parameter->elements()});
  return parts;
}

ParameterShards::ParameterShards(const StorePlan& plan, OptimizerName optimizer, const MeshShape& shape,
                                 const MeshCoordinates& at)
    : dense_(deal(plan, plan.dense, optimizer, shape.data)),
      experts_(deal(plan, plan.experts, optimizer, shape.replicas())) {
  add_parts(plan, plan.dense, dense_, at.data, parts_);
  add_parts(plan, plan.experts, experts_, at.replica, parts_);
}

bool ParameterShards::owns(const Parameter& parameter, std::int64_t begin, std::int64_t elements) const {
  return std::ranges::any_of(parts_, [&](const ParameterPart& part) {
    return part.parameter == &parameter && begin >= part.begin && begin + elements <= part.begin + part.elements;
  });
}

}  // namespace shoestring
