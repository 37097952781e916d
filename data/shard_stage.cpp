#include "data/shard_stage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kChunkBytes = std::int64_t{1} << 18;  // so little that a batch does not wait long behind it
constexpr auto kLook = std::chrono::milliseconds(50);        // between two looks at what another process copies
constexpr double kGiveWay = 1e-3;                            // seconds between two looks at whether the storage is busy
constexpr const char* kPartial = "partial.h5";               // under the lock
constexpr const char* kLock = "copying.lock";

std::int64_t bytes_of(const Shard& shard) { return static_cast<std::int64_t>(shard.info().file_bytes); }

/// Held by the process of a node that copies; freed by its end, however it ends.
class CopyLock {
 public:
  explicit CopyLock(const fs::path& folder) {
    const fs::path path = folder / kLock;
    file_ = FileHandle(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (!file_.open()) fail(ExitCode::io, "{}: cannot be opened: {}", path.string(), system_reason(errno));
    held_ = ::flock(file_.get(), LOCK_EX | LOCK_NB) == 0;
  }
  bool held() const { return held_; }

 private:
  FileHandle file_;
  bool held_ = false;
};

// Whatever the file says of itself: every block of it, as it came to lie on the disk.
void check_whole(const fs::path& copy, const ShardInfo& info) {
  const Shard shard = Shard::open(copy.string(), {ShardIo::pread, true});
  if (shard.info().content_hash != info.content_hash) {
    fail(ExitCode::bad_data, "{}: is not a copy of {} any more; was it written to?", copy.string(), info.path);
  }
  for (std::uint64_t block = 0; block < info.token_blocks; ++block) shard.check_block(block);
}

}  // namespace

struct ShardStage::State {
  StageOptions options;
  std::vector<const Shard*> chosen;  // that have room
  std::set<std::string> names;       // of their copies

  mutable std::mutex mutex;
  std::condition_variable changed;
  bool stop = false;
  StageCounts counts;
  std::thread thread;

  fs::path copy_of(const Shard& shard) const { return options.folder / name_of(shard); }
  static std::string name_of(const Shard& shard) { return fmt::format("{:016x}.h5", shard.info().content_hash); }

  bool stopped() const {
    const std::scoped_lock lock(mutex);
    return stop;
  }
  // False: stop.
  bool wait_a_little() {
    std::unique_lock lock(mutex);
    return !changed.wait_for(lock, kLook, [&] { return stop; });
  }

  void choose(const std::vector<const Shard*>& shards);
  void serve();
  bool stage(const Shard& shard);
  bool copy(const Shard& shard);
  void read_whole(const Shard& shard, const fs::path& into);
  void give_way(double seconds);
  void make_room(std::int64_t bytes) const;
};

// What another run of the folder takes meanwhile is not known: a full disk is trouble, not an error.
void ShardStage::State::choose(const std::vector<const Shard*>& shards) {
  std::int64_t room = options.most_bytes;
  if (room == 0) {
    room = static_cast<std::int64_t>(fs::space(options.folder).available) / 10 * 9;
    for (const fs::path& entry : list_directory(options.folder)) {
      std::error_code gone;
      if (entry.extension() == kShardExtension) room += static_cast<std::int64_t>(fs::file_size(entry, gone));
    }
    options.most_bytes = room;
  }
  counts.shards = std::ssize(shards);
  for (const Shard* shard : shards) {
    const bool again = names.contains(name_of(*shard));
    if (!again && bytes_of(*shard) > room) {
      ++counts.too_many;
      continue;
    }
    if (!again) room -= bytes_of(*shard);
    names.insert(name_of(*shard));
    chosen.push_back(shard);
  }
}

// A shard that is damaged is the trouble of whoever reads it; a disk that fails is one of all that are left.
void ShardStage::State::serve() {
  for (std::size_t at = 0; at < chosen.size(); ++at) {
    std::int64_t lost = 0;
    std::string why;
    try {
      while (!stage(*chosen[at])) {
        if (!wait_a_little()) return;
      }
      continue;
    } catch (const Error& error) {
      lost = error.code() == ExitCode::bad_data ? 1 : std::ssize(chosen) - static_cast<std::int64_t>(at);
      why = error.what();
    } catch (const std::exception& error) {
      lost = std::ssize(chosen) - static_cast<std::int64_t>(at);
      why = error.what();
    }
    const std::scoped_lock lock(mutex);
    counts.failed += lost;
    counts.trouble = std::move(why);
    if (lost != 1) return;
  }
}

// False while another process copies, or when it is to stop.
bool ShardStage::State::stage(const Shard& shard) {
  const fs::path path = copy_of(shard);
  if (type_of(path) != fs::file_type::regular && !copy(shard)) return false;
  shard.read_from(path.string(), options.io);
  const std::scoped_lock lock(mutex);
  ++counts.staged;
  counts.staged_bytes += bytes_of(shard);
  return true;
}

bool ShardStage::State::copy(const Shard& shard) {
  const CopyLock lock(options.folder);
  if (!lock.held()) return false;
  if (type_of(copy_of(shard)) == fs::file_type::regular) return true;
  const fs::path partial = options.folder / kPartial;
  make_room(bytes_of(shard));
  read_whole(shard, partial);
  if (stopped()) return false;
  check_whole(partial, shard.info());
  fs::rename(partial, copy_of(shard));
  sync_directory(options.folder);
  return true;
}

// As far as it comes before it is to stop.
void ShardStage::State::read_whole(const Shard& shard, const fs::path& into) {
  const ShardStorage& storage = *shard.options().storage;
  StoragePatience patience = shard.options().patience;
  patience.leave = [this, leave = patience.leave] { return stopped() || (leave && leave()); };
  const double begin = storage.seconds();
  FileWriter to(into);
  std::string chunk(static_cast<std::size_t>(kChunkBytes), '\0');
  for (std::int64_t at = 0; at < bytes_of(shard) && !stopped();) {
    const double chunk_begin = storage.seconds();
    const std::int64_t count = std::min(kChunkBytes, bytes_of(shard) - at);
    shard.read_file(static_cast<std::uint64_t>(at), static_cast<std::uint64_t>(count), chunk.data(), patience);
    give_way(storage.seconds() - chunk_begin);
    to.write(chunk.data(), static_cast<std::size_t>(count));
    at += count;
  }
  to.finish();
  const std::scoped_lock lock(mutex);
  counts.copied_bytes += to.bytes();
  counts.copied_seconds += storage.seconds() - begin;
}

// At most so long.
void ShardStage::State::give_way(double seconds) {
  if (!options.busy) return;
  for (double waited = 0; waited < seconds && options.busy(); waited += kGiveWay) {
    std::unique_lock lock(mutex);
    if (changed.wait_for(lock, std::chrono::duration<double>(kGiveWay), [&] { return stop; })) return;
  }
}

// Under the lock. Whoever reads a copy that is removed keeps it until it closes it.
void ShardStage::State::make_room(std::int64_t bytes) const {
  std::int64_t lying = 0;
  std::vector<fs::path> others;
  for (const fs::path& entry : list_directory(options.folder)) {
    if (entry.extension() != kShardExtension) continue;
    std::error_code gone;
    lying += static_cast<std::int64_t>(fs::file_size(entry, gone));
    if (!names.contains(entry.filename().string())) others.push_back(entry);
  }
  for (const fs::path& other : others) {
    if (lying + bytes <= options.most_bytes && other.filename() != kPartial) continue;
    std::error_code gone;
    lying -= static_cast<std::int64_t>(fs::file_size(other, gone));
    fs::remove(other, gone);
  }
}

ShardStage::ShardStage(StageOptions options, const std::vector<const Shard*>& shards, const ThreadMaker& make)
    : state_(std::make_unique<State>()) {
  state_->options = std::move(options);
  make_directories(state_->options.folder);
  state_->choose(shards);
  try {
    state_->thread = make([state = state_.get()] { state->serve(); });
  } catch (const std::system_error& error) {
    fail(ExitCode::io, "cannot make the thread that copies shards to {}: {}; {}", state_->options.folder.string(),
         error.code().message(), thread_limits());
  }
}

ShardStage::~ShardStage() {
  {
    const std::scoped_lock lock(state_->mutex);
    state_->stop = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
}

StageCounts ShardStage::counts() const {
  const std::scoped_lock lock(state_->mutex);
  return state_->counts;
}

}  // namespace shoestring
