// Learning rate as a function of the way gone: a warm-up in steps, then a shape over the horizon.
//
// `progress` in [0, 1] is the share of the horizon that is behind: tokens over tokens, steps over steps, or, with a
// budget, the way towards a planned last step (core/budget/horizon.h). The shapes:
//   warmup_stable_decay  peak, then over the last `decay_fraction` peak * (1 - (1 - final) * sqrt(way through it))
//                        (Haegele et al., arXiv 2405.18392: constant rate with a 1-sqrt cooldown)
//   cosine               from peak to final along half a cosine
//   deepseek             DeepSeek-V3 (arXiv 2412.19437, section 4.2) in shares of its 14.8T tokens: peak to 10T, cosine
//                        to a tenth over 4.3T, a tenth for 333B, 7.3/220 of peak for the last 167B
//   constant             peak
#pragma once

#include <cstdint>

#include "core/recipe/recipe.h"

namespace shoestring {

/// `step` counts updates from 1; during warm-up the rate rises linearly to the peak at step = warmup_steps.
double learning_rate(const ScheduleSpec& spec, std::int64_t step, double progress);

/// The share of the horizon before the shape begins to fall; 1 where it never does, or does so from the beginning on.
double stable_share(const ScheduleSpec& spec);

}  // namespace shoestring
