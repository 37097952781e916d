#include "core/optimizer/gradient_sum.h"

namespace shoestring {

GradientSum::GradientSum(ParameterStore& store, Mesh& mesh, int groups, Stream& stream, const ParameterShards* shards)
    : store_(store),
      sharded_(shards != nullptr),
      dense_(mesh.data(), sharded_ ? shards->dense() : ShardLayout(store.dense.end, mesh.data().size()),
             groups / mesh.data().size(), store.gradients.dtype(), stream) {
  if (store.experts.empty()) return;
  check(store.sources == 1 || store.sources == mesh.shape().expert, "gradients of {} sources on an expert axis of {}",
        store.sources, mesh.shape().expert);
  const ShardLayout even(store.experts.elements(), mesh.replica().size());
  experts_.emplace(mesh.replica(), sharded_ ? shards->experts() : even, dense_.rounds(), store.gradients.dtype(),
                   stream, store.sources);
}

void GradientSum::fold() {
  dense_.fold(store_.dense_gradients());
  if (experts_) experts_->fold(store_.expert_gradients());
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
