// The options that commands share which write texts: how a model is opened, how tokens are drawn.
#pragma once

#include <vector>

#include "core/generation/open_model.h"
#include "core/generation/sampler.h"
#include "tools/arguments.h"

namespace shoestring {

/// --precision, --context, --latents, --threads
std::vector<Option> opening_options();
OpenModelOptions opening_of(const Arguments& arguments);

/// --temperature, --top-k, --top-p, --min-p, with these defaults.
std::vector<Option> sampling_options(const SamplingSettings& defaults);
SamplingSettings sampling_of(const Arguments& arguments, const SamplingSettings& defaults);

}  // namespace shoestring
