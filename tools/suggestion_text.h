// Not a command: what `shoestring plan --suggest` says, as text and as JSON.
#pragma once

#include "core/budget/suggestion.h"
#include "kernels/base/json.h"

namespace shoestring {

/// Prints the models that were priced, the best first, and the lines of a recipe for the best.
void print_suggestions(const SuggestionQuestion& question);

/// The same as JSON (`shoestring.suggestion/1`).
Json suggestions_json(const SuggestionQuestion& question);

}  // namespace shoestring
