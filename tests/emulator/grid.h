// Runs a grid of threads on one thread of the host: every thread of a block is a fibre that runs until it must wait.
//
// Blocks run one after another, the fibres of a block in turns; both in an order that a test chooses, because a kernel
// that needs an order is wrong and shows it in its bits. What cannot go on, or leaves the rules of CUDA, ends the
// launch with a Fault that says who waits where. The kernels' sources see include/cuda_runtime.h instead of this.
//
// Not seen: races between blocks other than by the order, weak memory, time.
#pragma once

#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

namespace emulator {

using Where = std::source_location;

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/// What a device would not do, or would do to somebody else's memory.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Order : std::uint8_t { up, down, scrambled };

/// How the next launches run. One for the process: tests are its only writers.
struct Settings {
  Order order = Order::up;        ///< of blocks, and of the fibres of a block
  std::uint8_t fill = 0xFF;       ///< what shared memory holds when a block begins
  std::string skipped_barrier{};  ///< "file:line" of a barrier that nobody waits at; empty: none
  bool stop_at_race = false;      ///< a launch ends at ThreadSanitizer's first report
  bool late = true;               ///< a stream runs what it was given when somebody waits for it, not before
};
Settings& settings();

/// "file:line" of every __syncthreads, __syncwarp and named barrier that a launch came to since clear_history().
std::vector<std::string> barriers_seen();
/// Addresses of the kernels launched since then.
std::vector<const void*> kernels_seen();
/// Races that ThreadSanitizer reported since then; 0 in a build without it.
int races_seen();
void clear_history();

/// The place of the thread that asks.
struct Place {
  uint3 thread, block;
  dim3 block_dim, grid_dim;
};
const Place& here();

/// Runs `thread` for every thread of the grid. `kernel` is remembered as launched. Throws Fault.
void run_grid(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes, const void* kernel,
              const std::function<void()>& thread);

// What device code does, from inside run_grid.

/// All threads of the block; a thread that has ended is missing. `id` 0 is __syncthreads. Returns how many of them
/// voted.
int barrier(int id, int threads, const Where& where, bool vote = false);
/// Lanes of `mask` hand in `mine` and take everybody's; `ordered`: memory is ordered too, as by __syncwarp.
void exchange(std::uint32_t mask, std::uint64_t mine, const char* kind, bool ordered, const Where& where,
              std::uint64_t (&all)[32]);
void* dynamic_shared();

}  // namespace emulator
