// The storage that shards lie on: slow at times, and at times gone for a while.
//
// All calls that reach it go through a ShardStorage, so that a test can be slow, or fail, in a time that it holds
// itself. What fails is tried again after growing pauses, for as long as StoragePatience says.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace shoestring {

/// The calls as the system has them. Thread-safe.
class ShardStorage {
 public:
  virtual ~ShardStorage() = default;
  /// As ::open for reading: a descriptor, or -1 and errno.
  virtual int open(const std::string& path) const;
  /// As ::pread.
  virtual std::int64_t read(int file, std::int64_t offset, void* to, std::int64_t bytes) const;
  /// These bytes will be read soon; a hint.
  virtual void will_need(int file, std::int64_t offset, std::int64_t bytes) const;
  /// Whether the file lies behind a network: a map of it would turn what fails into a signal that ends the process.
  virtual bool remote(int file) const;
  virtual double seconds() const;  ///< a clock that never jumps
  virtual void pause(double seconds) const;
};

const ShardStorage& system_storage();

/// What is done about a storage that fails where shards that were there are listed, opened or read; by whatever thread.
struct StoragePatience {
  double seconds = 0;           ///< that the pauses of one call may come to; 0: the first failure is final
  std::function<bool()> leave;  ///< asked ten times a second in a pause: true ends it
  std::function<void(const std::string&)> say;  ///< is told what is waited for, in a sentence
  std::function<double()> left{};  ///< seconds that may be waited yet, for a reason that lies elsewhere, as a budget
};

/// The pauses of one call.
class StorageWait {
 public:
  StorageWait(const ShardStorage& storage, const StoragePatience& patience, const std::string& path)
      : storage_(storage), patience_(patience), path_(path) {}

  /// After a call has failed with `error`: returns when it is to be made again. Throws Error(io) where that is of no
  /// use or not wanted, Error(preempted) when the patience is at its end or asked to leave: what is whole is to be
  /// saved, and the same command goes on when the storage is back.
  void failed(int error);
  /// A call came through.
  void done() const;

 private:
  void pause_for(double seconds, int error) const;

  const ShardStorage& storage_;
  const StoragePatience& patience_;
  const std::string& path_;
  int failures_ = 0;
  double waited_ = 0;  // seconds, all pauses
};

}  // namespace shoestring
