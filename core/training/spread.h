// An order in which any beginning is spread evenly over all there is: what looks at part of it has looked everywhere.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace shoestring {

/// Thing `number` of part `part`.
struct SpreadPlace {
  std::size_t part = 0;
  std::int64_t number = 0;
};
/// All things of parts that have `counts` of them: over each part evenly, and over the parts by their size. A thing
/// comes where the bits of its number, read backwards as a fraction, say (van der Corput's sequence).
std::vector<SpreadPlace> spread_evenly(std::span<const std::int64_t> counts);

}  // namespace shoestring
