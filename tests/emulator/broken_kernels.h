// Kernels that are wrong on purpose, one for each thing that the emulator finds, and their right twins.
#pragma once

#include "kernels/base/device.h"

namespace shoestring::broken {

enum class Fault {
  none,
  missing_barrier,       ///< a thread reads its neighbour's number before everybody has written
  missing_warp_barrier,  ///< the same inside a warp
  divergent_barrier,     ///< half of the block goes to another barrier
  absent_at_barrier,     ///< one thread ends before
  divergent_collective,  ///< the upper half of a warp stays out of a shuffle that names it
  mask_leaves_out,       ///< a lane calls a collective that does not name it
  past_global,           ///< one element past an array in device memory
  past_shared,           ///< one past an array in shared memory
  past_dynamic,          ///< one past dynamic shared memory
  uninitialised,         ///< reads shared memory that nobody wrote
  misaligned,            ///< a load of four floats at an address that is not one of four
  order_of_blocks,       ///< blocks add to one float, each in its turn
};

/// y [n] from x [n], n = 64 per block; `twin`: the same kernel, mended.
void run(Fault fault, const float* x, float* y, int blocks, Stream& stream);

}  // namespace shoestring::broken
