// The tile configuration that every AMX kernel uses: eight tiles of 16 rows of 64 bytes.
#pragma once

#include <cstdint>

namespace shoestring::amx {

struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

/// For `ldtilecfg`. Static: GCC 12 drops the initialisation of a configuration on the stack.
inline constinit TileConfig g_tile_config{};

}  // namespace shoestring::amx
