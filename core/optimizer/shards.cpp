#include "core/optimizer/shards.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

/// Where units begin in a region, from its beginning on, in order.
std::vector<std::int64_t> units_of(const StorePlan& plan, StoreRegion region, OptimizerName optimizer) {
  std::vector<std::int64_t> begins;
  for (std::size_t i = 0; i < plan.parameters.size(); ++i) {
    const Parameter& parameter = *plan.parameters[i];
    const std::int64_t offset = plan.offsets[i] - region.begin;
    if (offset < 0 || offset >= region.elements()) continue;
    const bool whole = optimizer == OptimizerName::muon && parameter.role == ParameterRole::matrix;
    for (const ParameterSlice& slice : parameter.slices) {
      const std::int64_t elements = slice.rows * parameter.columns;
      const std::int64_t step = whole ? std::max<std::int64_t>(1, elements) : kPieceElements;
      for (std::int64_t at = 0; at < elements; at += step) {
        begins.push_back(offset + slice.begin * parameter.columns + at);
      }
    }
  }
  return begins;
}

/// The cut nearest to each rank's even share.
ShardLayout cut(const StorePlan& plan, StoreRegion region, OptimizerName optimizer, int ranks) {
  std::vector<std::int64_t> begins = units_of(plan, region, optimizer);
  begins.push_back(region.elements());
  std::vector<std::int64_t> ends;
  for (int rank = 1; rank < ranks; ++rank) {
    const std::int64_t even = region.elements() / ranks * rank;
    auto after = std::lower_bound(begins.begin(), begins.end(), even);
    if (after != begins.begin() && even - *std::prev(after) < *after - even) --after;
    ends.push_back(std::max(*after, ends.empty() ? 0 : ends.back()));
  }
  ends.push_back(region.elements());
  return ShardLayout(std::move(ends));
}

/// Of `mine`, from the region's beginning on.
void add_parts(const StorePlan& plan, StoreRegion region, ShardRange mine, std::vector<ParameterPart>& parts) {
  for (std::size_t i = 0; i < plan.parameters.size(); ++i) {
    const std::int64_t offset = plan.offsets[i] - region.begin;
    if (offset < 0 || offset >= region.elements()) continue;
    const std::int64_t begin = std::max(mine.begin, offset);
    const std::int64_t end = std::min(mine.end, offset + plan.parameters[i]->elements());
    if (begin < end) parts.push_back({plan.parameters[i], begin - offset, end - begin});
  }
}

}  // namespace

std::vector<ParameterPart> whole_parts(const std::vector<Parameter*>& parameters) {
  std::vector<ParameterPart> parts;
  for (Parameter* parameter : parameters) parts.push_back({parameter, 0, parameter->elements()});
  return parts;
}

ParameterShards::ParameterShards(StorePlan plan, OptimizerName optimizer, const MeshShape& shape,
                                 const MeshCoordinates& at)
    : dense_(cut(plan, plan.dense, optimizer, shape.data)),
      experts_(cut(plan, plan.experts, optimizer, shape.replicas())) {
  add_parts(plan, plan.dense, dense_.range(at.data), parts_);
  add_parts(plan, plan.experts, experts_.range(at.replica), parts_);
}

bool ParameterShards::owns(const Parameter& parameter, std::int64_t element) const {
  return std::any_of(parts_.begin(), parts_.end(), [&](const ParameterPart& part) {
    return part.parameter == &parameter && element >= part.begin && element < part.begin + part.elements;
  });
}

}  // namespace shoestring
