// First values of weights.
#pragma once

#include <cstdint>
#include <functional>

#include "core/model/layer.h"

namespace shoestring {

/// Normal(0, init_std), or init_value where init_std is 0. Each disk tensor draws from its own sequence, keyed by the
/// seed and its name: fused, stacked or split over ranks, a tensor begins the same. Values are rounded to f32.
/// `drawn` hears of every piece how many elements it has; what it throws ends the drawing.
void initialise_parameter(Parameter& parameter, std::uint64_t seed, Stream& stream,
                          const std::function<void(std::int64_t elements)>& drawn = nullptr);

}  // namespace shoestring
