#include "core/optimizer/clip.h"

#include <cmath>

#include "kernels/reduce.h"

namespace shoestring {

double gradient_norm(const ParameterStore& store, double scale, Stream& stream) {
  double squares = sum_of_squares(store.gradients_of(store.dense), stream);
  if (!store.experts.empty()) squares += sum_of_squares(store.gradients_of(store.experts), stream);
  return std::sqrt(squares) * scale;
}

double clip_factor(double norm, double limit) { return limit > 0 && norm > limit ? limit / norm : 1.0; }

}  // namespace shoestring
