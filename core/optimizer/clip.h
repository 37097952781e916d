// The global gradient norm and the factor that clips it.
#pragma once

#include "core/model/layer.h"
#include "kernels/base/device.h"

namespace shoestring {

/// Norm of the mean gradient: all gradients of the store, summed over tokens, times `scale` (1 / trained tokens).
/// Summed in one fixed order, region by region, so the bits do not depend on threads or ranks. NaN or infinity comes
/// through.
double gradient_norm(const ParameterStore& store, double scale, Stream& stream);

/// What the gradient is multiplied by so that its norm is at most `limit`; 1 where limit is 0 or infinite (off).
double clip_factor(double norm, double limit);

}  // namespace shoestring
