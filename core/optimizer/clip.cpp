#include "core/optimizer/clip.h"

#include <cmath>

#include "kernels/reduce.h"

namespace shoestring {

double gradient_norm(const ParameterStore& store, double scale, Stream& stream) {
  return std::sqrt(sum_of_squares(store.gradients, stream)) * scale;
}

double clip_factor(double norm, double limit) { return limit > 0 && norm > limit ? limit / norm : 1.0; }

}  // namespace shoestring
