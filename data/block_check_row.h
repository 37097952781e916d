// One row of block_check: included once by each file that makes one, after it switched the compiler's target, with the
// row's namespace in SHOESTRING_BLOCK_CHECK. XXH3 takes its kernel from XXH_VECTOR, since a pragma of the target does
// not define __AVX2__ for the preprocessor; the compiler makes maxima of the target's width out of the loops.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace shoestring::block_check::SHOESTRING_BLOCK_CHECK {
// NOLINTBEGIN(misc-definitions-in-headers): a namespace of their own for each file

std::uint64_t checksum(const void* data, std::size_t bytes) { return XXH3_64bits(data, bytes); }

std::uint32_t largest_token(const void* tokens, std::size_t count, std::uint32_t token_bytes) {
  if (token_bytes == 2) {
    const auto* ids = static_cast<const std::uint16_t*>(tokens);
    std::uint16_t largest = 0;
    for (std::size_t i = 0; i < count; ++i) largest = ids[i] > largest ? ids[i] : largest;
    return largest;
  }
  const auto* ids = static_cast<const std::uint32_t*>(tokens);
  std::uint32_t largest = 0;
  for (std::size_t i = 0; i < count; ++i) largest = ids[i] > largest ? ids[i] : largest;
  return largest;
}

// NOLINTEND(misc-definitions-in-headers)
}  // namespace shoestring::block_check::SHOESTRING_BLOCK_CHECK
