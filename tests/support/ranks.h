// Ranks as threads: runs one body per rank of a world that lives in this process.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "parallel/communicator_threads.h"

namespace shoestring::testing {

/// Runs body(communicator) on `ranks` threads and joins them. When a body throws, the others' operations throw too, so
/// that nobody waits for ever; the first exception is rethrown here.
inline void run_ranks(int ranks, const std::function<void(Communicator&)>& body, double timeout_seconds = 60) {
  ThreadWorld world(ranks);
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        const std::unique_ptr<Communicator> communicator = world.communicator(rank);
        communicator->set_timeout(timeout_seconds);
        body(*communicator);
      } catch (const std::exception& error) {
        {
          const std::lock_guard lock(mutex);
          if (first == nullptr) first = std::current_exception();
        }
        world.abort(ExitCode::bug, std::string("another rank failed: ") + error.what());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (first != nullptr) std::rethrow_exception(first);
}

}  // namespace shoestring::testing
