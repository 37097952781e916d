// Host memory on its way to a device, which reads it in its own time: nobody waits, and nothing is overwritten before
// it has been read.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/base/event.h"
#include "kernels/base/memory.h"

namespace shoestring {

class Staging {
 public:
  /// Pieces of `bytes` bytes for `device`: pinned where that is a CUDA device, and one alone on a CPU, where a copy is
  /// done when its call returns.
  Staging(std::int64_t bytes, Device device);

  /// A piece that nothing reads any more; one more is made where all are still being read.
  void* take();
  /// All copies from the piece taken last were given to `stream`.
  void sent(const Stream& stream);

  std::int64_t pieces() const { return static_cast<std::int64_t>(pieces_.size()); }

 private:
  struct Piece {
    Storage memory;
    Event read;
  };
  std::int64_t bytes_;
  Device device_;
  std::vector<Piece> pieces_;
  std::size_t last_ = 0;
};

}  // namespace shoestring
