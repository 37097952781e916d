// First values of weights.
#pragma once

#include <cstdint>

#include "core/model/layer.h"

namespace shoestring {

/// Normal(0, init_std), or init_value where init_std is 0. Each disk tensor draws from its own sequence, keyed by the
/// seed and its name: fused, stacked or split over ranks, a tensor begins the same. Values are rounded to f32.
void initialise_parameter(Parameter& parameter, std::uint64_t seed, Stream& stream);

}  // namespace shoestring
