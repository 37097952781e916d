#include "data/block_check.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "kernels/base/cpu.h"

namespace shoestring {
namespace block_check::portable {

std::uint64_t checksum(const void* data, std::size_t bytes) { return XXH3_64bits(data, bytes); }

std::uint32_t largest_token(const void* tokens, std::size_t count, std::uint32_t token_bytes) {
  std::uint32_t largest = 0;
  if (token_bytes == 2) {
    const auto* ids = static_cast<const std::uint16_t*>(tokens);
    for (std::size_t i = 0; i < count; ++i) largest = std::max<std::uint32_t>(largest, ids[i]);
  } else {
    const auto* ids = static_cast<const std::uint32_t*>(tokens);
    for (std::size_t i = 0; i < count; ++i) largest = std::max(largest, ids[i]);
  }
  return largest;
}

}  // namespace block_check::portable

std::uint64_t checksum(const void* data, std::size_t bytes) {
  return cpu_features().avx512 ? block_check::avx512::checksum(data, bytes)
                               : block_check::portable::checksum(data, bytes);
}

std::uint64_t checksum(std::string_view text) { return checksum(text.data(), text.size()); }

std::uint32_t largest_token(const void* tokens, std::size_t count, std::uint32_t token_bytes) {
  return cpu_features().avx512 ? block_check::avx512::largest_token(tokens, count, token_bytes)
                               : block_check::portable::largest_token(tokens, count, token_bytes);
}

void widen_tokens(const void* tokens, std::size_t count, std::uint32_t token_bytes, std::int32_t* out) {
  if (token_bytes == 4) {
    std::memcpy(out, tokens, count * 4);
    return;
  }
  const auto* ids = static_cast<const std::uint16_t*>(tokens);
  for (std::size_t i = 0; i < count; ++i) out[i] = ids[i];
}

}  // namespace shoestring
