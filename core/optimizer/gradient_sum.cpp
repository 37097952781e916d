#include "core/optimizer/gradient_sum.h"

#include <algorithm>
#include <map>

namespace shoestring {

namespace {

/// What `parts` have of a region, from its beginning on; the gap behind a parameter included.
std::vector<Bucket> buckets_of(const StorePlan& plan, StoreRegion region,
                               const std::vector<std::vector<Parameter*>>& parts) {
  std::map<const Parameter*, ElementRange> places;
  for (std::size_t i = 0; i < plan.parameters.size(); ++i) {
    if (plan.offsets[i] < region.begin || plan.offsets[i] >= region.end) continue;
    const std::int64_t end = i + 1 < plan.offsets.size() ? plan.offsets[i + 1] : plan.elements;
    places[plan.parameters[i]] = {plan.offsets[i] - region.begin, std::min(end, region.end) - region.begin};
  }
  std::vector<Bucket> buckets;
  for (const std::vector<Parameter*>& part : parts) {
    Bucket& bucket = buckets.emplace_back();
    for (const Parameter* parameter : part) {
      if (const auto place = places.find(parameter); place != places.end()) bucket.push_back(place->second);
    }
  }
  return buckets;
}

}  // namespace

GradientSum::GradientSum(ParameterStore& store, Mesh& mesh, int groups, Stream& stream, const ParameterShards* shards,
                         const std::vector<std::vector<Parameter*>>& parts)
    : store_(store),
      sharded_(shards != nullptr),
      dense_(mesh.data(), sharded_ ? shards->dense() : ShardLayout(store.dense.end, mesh.data().size()),
             groups / mesh.data().size(), store.gradients.dtype(), stream, 1, buckets_of(store, store.dense, parts)) {
  if (store.experts.empty()) return;
  check(store.sources == 1 || store.sources == mesh.shape().expert, "gradients of {} sources on an expert axis of {}",
        store.sources, mesh.shape().expert);
  const ShardLayout even(store.experts.elements(), mesh.replica().size());
  experts_.emplace(mesh.replica(), sharded_ ? shards->experts() : even, dense_.rounds(), store.gradients.dtype(),
                   stream, store.sources, buckets_of(store, store.experts, parts));
}

void GradientSum::begin() {
  dense_.begin(store_.dense_gradients());
  if (experts_) experts_->begin(store_.expert_gradients());
}

void GradientSum::complete(int part) {
  dense_.complete(part);
  if (experts_) experts_->complete(part);
}

void GradientSum::fold() {
  dense_.fold();
  if (experts_) experts_->fold();
}

void GradientSum::gather() {
  const auto total_into = [&](CanonicalReducer& reducer, TensorView full) {
    sharded_ ? reducer.place(full) : reducer.gather(full);
  };
  total_into(dense_, store_.dense_gradients());
  if (experts_) total_into(*experts_, store_.expert_gradients().slice(0, 0, store_.experts.elements()));
}

void GradientSum::reset() {
  dense_.reset();
  if (experts_) experts_->reset();
}

}  // namespace shoestring
