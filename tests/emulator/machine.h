// The one device of grid.h: what its launches and its threads' collectives share. Included by grid.cpp and
// collectives.cpp only.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <set>

#include "tests/emulator/fibre.h"
#include "tests/emulator/grid.h"

namespace emulator {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;                // of a block, on every device so far
constexpr std::size_t kMaxDynamicShared = 227 << 10;  // sm_90
constexpr int kNamedBarriers = 16;

struct Thread {
  Fibre fibre;
  Place place{};
  const char* waits_at = nullptr;  ///< what it waits at; nullptr while it can run
  Where where = Where::current();
  int barrier = -1;     ///< the barrier it arrived at and was not let through
  unsigned rounds = 0;  ///< barriers passed: they order memory at alternating points
};

struct Barrier {
  int arrived = 0;
  int expected = 0;
  unsigned line = 0;
  unsigned generation = 0;
  int votes[2] = {};  ///< how many threads said yes in this generation, and in the last
  char order[2] = {};
};

/// A collective of some lanes of a warp, from the first that comes to the last that leaves.
struct Collective {
  std::uint32_t mask = 0;  ///< 0: free
  std::uint32_t arrived = 0;
  std::uint32_t left = 0;
  const char* kind = nullptr;
  Where where = Where::current();
  std::uint64_t value[kWarp] = {};
  char order[2] = {};
  unsigned uses = 0;
};

/// Why a launch ends early. Made inside a fibre, where nothing is allocated: ThreadSanitizer would take what the host
/// frees later for a race. The text comes from the host.
struct Stop {
  const char* what = nullptr;  ///< nullptr: go on
  int number = -1;             ///< of a lane or a barrier
  const char* other = nullptr;
  Where where = Where::current();
  Place place{};
};

struct Site {
  const char* file = nullptr;  ///< nullptr: none
  unsigned line = 0;
  bool skipped = false;
};

// The one device. A launch runs to its end before it returns, so that there is one of everything.
struct Machine {
  Settings settings;
  std::array<Site, 1024> sites{};  // of barriers, where their hash says or behind it; never full
  bool abandoned = false;          // what still waits shall only say what it wrote
  std::set<const void*> kernels;
  int races = 0;
  std::deque<Thread> threads;  // grows, and is kept: stacks and ThreadSanitizer's fibres are dear
  unsigned block_threads = 0;
  Thread* running = nullptr;
  std::array<Barrier, kNamedBarriers> barrier;
  std::array<std::array<Collective, kWarp>, kMaxThreads / kWarp> warps;
  const std::function<void()>* body = nullptr;
  Stop stop;
  long progress = 0;
  char launched = 0;  // what the host wrote before a launch
  char ended = 0;     // what a grid wrote
  char blocks[2] = {};
  unsigned block_number = 0;
  char* dynamic = nullptr;
};
Machine& machine();

/// "file:line" of a barrier, the file without its folders; in a buffer, because fibres ask too.
std::array<char, 128> text(const Site& site);
bool is_skipped(const Site& site);

}  // namespace emulator
