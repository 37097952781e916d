#include "kernels/base/staging.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace shoestring {

Staging::Staging(std::int64_t bytes, Device device) : bytes_(bytes), device_(device) {}

void* Staging::take() {
  const auto free =
      std::find_if(pieces_.begin(), pieces_.end(), [](const Piece& piece) { return piece.read.reached(); });
  last_ = static_cast<std::size_t>(free - pieces_.begin());
  if (free == pieces_.end()) {
    const bool pinned = device_.kind != DeviceKind::cpu;
    pieces_.push_back({pinned ? Storage::pinned(bytes_, device_.dry) : Storage(bytes_, device_), Event(device_)});
  }
  return pieces_[last_].memory.data();
}

void Staging::sent(const Stream& stream) {
  check(last_ < pieces_.size(), "nothing was taken to be sent");
  pieces_[last_].read.record(stream);
}

}  // namespace shoestring
