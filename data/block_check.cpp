#include "data/block_check.h"

#include <algorithm>
#include <cassert>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "kernels/base/cpu.h"

#define SHOESTRING_BLOCK_CHECK portable
#include "data/block_check_row.h"

namespace shoestring {
namespace {

struct Row {
  std::uint64_t (*checksum)(const void*, std::size_t);
  std::uint32_t (*largest_token)(const void*, std::size_t, std::uint32_t);
};

Row best_row() {
#if defined(__x86_64__)
  if (cpu_features().avx512) return {block_check::avx512::checksum, block_check::avx512::largest_token};
  if (cpu_features().avx2) return {block_check::avx2::checksum, block_check::avx2::largest_token};
#endif
  return {block_check::portable::checksum, block_check::portable::largest_token};
}

const Row& row() {
  static const Row best = best_row();
  return best;
}

}  // namespace

std::uint64_t checksum(const void* data, std::size_t bytes) { return row().checksum(data, bytes); }

std::uint64_t checksum(std::string_view text) { return checksum(text.data(), text.size()); }

std::uint32_t largest_token(const void* tokens, std::size_t count, std::uint32_t token_bytes) {
  return row().largest_token(tokens, count, token_bytes);
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
