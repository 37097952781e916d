// Before work: what a run will need beside time is looked for before its first step is paid.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "core/recipe/recipe.h"
#include "core/training/checkpoint.h"
#include "core/training/memory_plan.h"
#include "kernels/base/device.h"
#include "kernels/base/limits.h"
#include "parallel/communicator.h"

namespace shoestring {

/// Throws Error(missing_input) where shards that the recipe names are not there. Before the ledger knows of an attempt:
/// a start with a wrong path is none.
void check_inputs(const DataSpec& data);
/// The same of its phases too: a path that is wrong in the second would be met hours later.
void check_inputs(const Recipe& recipe);
/// The same of the data of its own that a phase has, from phase `first` on: of a run that goes on, those behind may be
/// gone.
void check_phase_inputs(const Recipe& recipe, int first);

/// What this process may still write to the file system of a folder; the most where the system will not say.
struct DiskRoom {
  std::int64_t bytes = std::numeric_limits<std::int64_t>::max();
  std::int64_t files = std::numeric_limits<std::int64_t>::max();         ///< inodes
  std::int64_t largest_file = std::numeric_limits<std::int64_t>::max();  ///< bytes: `ulimit -f`
};
DiskRoom disk_room(const std::filesystem::path& directory);

/// What is written at once, and stays.
struct DiskNeed {
  std::int64_t bytes = 0;
  std::int64_t files = 0;
  std::int64_t largest_file = 0;  ///< bytes
};
/// Throws Error(io) where `left`, on the file system of `place`, has no room for `need`, naming both, what it is for
/// ("the model folder") and `remedy`, a way to another place.
void check_disk(const std::filesystem::path& place, const DiskRoom& left, const DiskNeed& need, std::string_view what,
                std::string_view remedy);

/// The least that ranks may still write, and whose that is: "rank 1 (host node7)", empty of one rank.
struct LeastRoom {
  DiskRoom room;
  std::string bytes_of, files_of, largest_file_of;
};
/// Of what each rank has, the most where it writes nothing. The same on every rank; collective.
LeastRoom least_room(Communicator& world, const DiskRoom& own);

/// Throws Error(io) where a rank's part of the model does not fit into the memory that is left, naming what there is,
/// what is needed and for what, and the keys that change it.
void check_memory(const MemoryLeft& left, const MemoryPlan& plan);

/// What a rank on a device will hold there.
struct DeviceNeed {
  Device device;
  MemoryPlan plan;
  StateMemory state = StateMemory::device;  ///< whose memory has the moments

  std::int64_t bytes() const;
};
/// A change of the recipe, by its keys, and what is needed then.
struct MemoryChange {
  std::string keys;
  DeviceNeed need;
};
/// The same for a device, of whose memory `left` is what nobody has taken. Names the first of `changes` that fits; they
/// are asked for where the recipe as it is does not.
void check_device_memory(const MemoryLeft& left, const DeviceNeed& need,
                         const std::function<std::vector<MemoryChange>()>& changes);

/// Training and held-out shards are open all at once. Raises `ulimit -n` as far as it goes; throws Error(io) where that
/// is not enough.
void check_open_files(const DataSpec& data);

/// What a person should know of `threads` threads on so many cores; empty: nothing. Threads beyond a quota wait for
/// each other.
std::string thread_caveat(int threads, int usable_cores);

/// A checkpoint is written beside the one before it, which goes afterwards: room for two, less the one that stands
/// there, in bytes and in files, none of them larger than the system lets it be. Throws Error(io) naming what is free,
/// and to whom, what is needed and how to change either.
void check_room(const std::filesystem::path& directory, const LeastRoom& least, const CheckpointNeed& need,
                bool has_checkpoint);

}  // namespace shoestring
