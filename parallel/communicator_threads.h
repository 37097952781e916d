// Ranks as threads of one process: the back end of tests and of a single machine without MPI.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace shoestring {

/// Makes the communicators of `size` ranks that live in one process. Each goes to its own thread. A message is copied
/// once, by whichever side comes second, straight from the sender's memory to the receiver's.
class ThreadWorld {
 public:
  explicit ThreadWorld(int size);
  ~ThreadWorld();

  int size() const { return size_; }
  /// Rank r's communicator; call once per rank, from any thread. It may outlive the world object.
  std::unique_ptr<Communicator> communicator(int rank);
  /// Every waiting or later operation of every rank throws Error(code, why).
  void abort(ExitCode code, const std::string& why);

  struct Group;

 private:
  int size_;
  std::shared_ptr<Group> group_;
};

}  // namespace shoestring
