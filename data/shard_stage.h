// Shards copied to a disk near by while they are read from storage that is slow.
//
// Samples are drawn from all shards of a source all through an epoch, so none of them is needed before the others, and
// keeping one is worth what any of its size is. Between sources it is the samples drawn for each byte that count. So
// whole shards are copied, the worthiest first, until the room for them is full, and stay: copying another in the place
// of one that is still drawn from would only cost. A shard is read from the storage until its copy stands, from the
// copy from then on; those that do not fit are read from the storage for good.
//
// One process of a node copies at a time, and all use what it copied. A copy is named by its shard's content, so the
// next attempt of a run finds it; copies that nobody of this process asks for make room when it is needed. A storage
// that fails is waited for as the shards' own patience says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/shard.h"
#include "kernels/base/thread.h"

namespace shoestring {

struct StageOptions {
  std::filesystem::path folder;  ///< made where it is missing
  std::int64_t most_bytes = 0;   ///< 0: nine tenths of what the disk has left
  ShardIo io = ShardIo::mmap;    ///< of the copies
  /// Whether somebody waits for the storage now. Copying then gives way for as long as it has just taken: it leaves
  /// half of the storage to who needs it, and takes half whoever does. Empty: nobody does.
  std::function<bool()> busy{};
};

struct StageCounts {
  std::int64_t shards = 0;
  std::int64_t staged = 0;        ///< are read from their copies
  std::int64_t staged_bytes = 0;  ///< of those
  std::int64_t too_many = 0;      ///< for which there is no room
  std::int64_t failed = 0;        ///< which could not be copied
  std::string trouble;            ///< of the last of those
  std::int64_t copied_bytes = 0;  ///< by this process, since it began
  double copied_seconds = 0;      ///< that took, waiting for the storage included

  bool settled() const { return staged + too_many + failed == shards; }
};

class ShardStage {
 public:
  /// Copies `shards`, which must outlive it, in this order, on a thread of its own. Throws Error(io) where the folder
  /// or the thread cannot be made.
  ShardStage(StageOptions options, const std::vector<const Shard*>& shards, const ThreadMaker& make = make_thread);
  /// Ends in the middle of a copy; what there is of it makes room for the next.
  ~ShardStage();
  ShardStage(const ShardStage&) = delete;
  ShardStage& operator=(const ShardStage&) = delete;

  StageCounts counts() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoestring
