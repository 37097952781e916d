#include "core/optimizer/gradient_sum.h"

namespace shoestring {

GradientSum::GradientSum(ParameterStore& store, Mesh& mesh, int groups, Stream& stream)
    : store_(store),
      dense_(mesh.data(), store.dense.end, groups / mesh.data().size(), store.gradients.dtype(), stream) {
  if (store.experts.empty()) return;
  check(store.sources == 1 || store.sources == mesh.shape().expert, "gradients of {} sources on an expert axis of {}",
        store.sources, mesh.shape().expert);
  experts_.emplace(mesh.replica(), store.experts.end - store.experts.begin, dense_.rounds(), store.gradients.dtype(),
                   stream, store.sources);
}

void GradientSum::fold() {
  dense_.fold(store_.dense_gradients());
  if (experts_) experts_->fold(store_.expert_gradients());
}

void GradientSum::gather() {
  dense_.gather(store_.dense_gradients());
  if (experts_) experts_->gather(store_.expert_gradients().slice(0, 0, store_.experts.end - store_.experts.begin));
}

void GradientSum::reset() {
  dense_.reset();
  if (experts_) experts_->reset();
}

}  // namespace shoestring
