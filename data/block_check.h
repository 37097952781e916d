// Checking a block of tokens: its XXH3-64 checksum and its largest id, in the widest vectors that the processor has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace shoestring {

/// XXH3-64 with seed 0.
std::uint64_t checksum(const void* data, std::size_t bytes);
std::uint64_t checksum(std::string_view text);

/// The largest of `count` little-endian ids of `token_bytes` (2 or 4) bytes; 0 when there are none.
std::uint32_t largest_token(const void* tokens, std::size_t count, std::uint32_t token_bytes);

/// Writes `count` ids as i32.
void widen_tokens(const void* tokens, std::size_t count, std::uint32_t token_bytes, std::int32_t* out);

namespace block_check::portable {
std::uint64_t checksum(const void* data, std::size_t bytes);
std::uint32_t largest_token(const void* tokens, std::size_t count, std::uint32_t token_bytes);
}  // namespace block_check::portable

// As above; they run on processors that have the set. Only where the program is built for x86-64.
namespace block_check::avx2 {
std::uint64_t checksum(const void* data, std::size_t bytes);
std::uint32_t largest_token(const void* tokens, std::size_t count, std::uint32_t token_bytes);
}  // namespace block_check::avx2

namespace block_check::avx512 {
std::uint64_t checksum(const void* data, std::size_t bytes);
std::uint32_t largest_token(const void* tokens, std::size_t count, std::uint32_t token_bytes);
}  // namespace block_check::avx512

}  // namespace shoestring
