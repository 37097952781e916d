// Where a step's host waits for its device, by cause. Counted, so that a wait nobody wants is seen; none on a CPU.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "kernels/base/device.h"

namespace shoestring {

enum class WaitCause : std::uint8_t {
  verdict,         ///< losses and the gradient's norm, on which the update depends: once a step
  expert_rows,     ///< how many rows each expert gets, which products and memory of the host are cut by
  exchanged_rows,  ///< before rows cross to other ranks
  host_state,      ///< optimizer state that stands in the host's memory
};
inline constexpr int kWaitCauses = 4;

struct HostWaits {
  std::array<std::int64_t, kWaitCauses> of{};
  std::int64_t& operator[](WaitCause cause) { return of[static_cast<std::size_t>(cause)]; }
  HostWaits& operator+=(const HostWaits& more);
};

/// Waits for everything that `stream` was given. Counts it in `waits`, if wanted, where the stream is a device's.
void wait_for(const Stream& stream, WaitCause cause, HostWaits* waits);

/// "1 a step for losses and the gradient's norm, 16 for the rows of experts"; empty where nobody waited.
std::string waits_text(const HostWaits& waits, std::int64_t steps);

}  // namespace shoestring
