#include "kernels/base/workers.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/control_groups.h"
#include "kernels/base/limits.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace shoestring {
namespace {

constexpr int kSpins =
    4000;  // some tens of microseconds: longer than the gap between two ops, shorter than a data wait

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

int Workers::usable_cores() { return usable_cores(cpu_quota()); }

int Workers::usable_cores(std::optional<double> quota) {
  cpu_set_t set;
  CPU_ZERO(&set);
  const bool known = sched_getaffinity(0, sizeof(set), &set) == 0;
  const int cores = known ? CPU_COUNT(&set) : static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, quota && *quota < cores ? static_cast<int>(*quota) : cores);
}

std::string Workers::cores_name() {
  std::string name = machine_name();
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (!CPU_ISSET(core, &set)) continue;
      name += ':';
      name += std::to_string(core);
    }
  }
  return name;
}

struct Workers::Team {
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wake;
  const std::function<void(int)>* body = nullptr;
  std::atomic<std::uint64_t> round{0};
  std::atomic<int> pending{0};
  std::atomic<bool> stop{false};
  std::atomic<bool> busy{false};
  std::exception_ptr fault;
  std::mutex fault_mutex;

  ~Team() {
    {
      const std::scoped_lock lock(mutex);
      stop = true;
      round.fetch_add(1, std::memory_order_acq_rel);
    }
    wake.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  void call(int worker) {
    try {
      (*body)(worker);
    } catch (...) {
      const std::scoped_lock lock(fault_mutex);
      if (!fault) fault = std::current_exception();
    }
  }

  void serve(int worker) {
    std::uint64_t seen = 0;
    while (true) {
      for (int spin = 0; spin < kSpins && round.load(std::memory_order_acquire) == seen; ++spin) relax();
      if (round.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return round.load(std::memory_order_acquire) != seen; });
      }
      seen = round.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_acquire)) return;
      call(worker);
      pending.fetch_sub(1, std::memory_order_acq_rel);
    }
  }
};

Workers::Workers(int count, const ThreadMaker& make) : count_(count > 0 ? count : usable_cores()) {
  auto team = std::make_unique<Team>();  // its destructor ends the threads begun, also when one more cannot be made
  team->threads.reserve(static_cast<std::size_t>(count_ - 1));
  try {
    for (int worker = 1; worker < count_; ++worker) {
      team->threads.push_back(make([place = team.get(), worker] { place->serve(worker); }));
    }
  } catch (const std::system_error& error) {
    fail(ExitCode::io, "cannot make {} worker threads, only {} with the first: {}; {}", count_,
         team->threads.size() + 1, error.code().message(), thread_limits());
  }
  team_ = std::move(team);
}

Workers::~Workers() = default;

void Workers::run(const std::function<void(int)>& body) {
  Team& team = *team_;
  check(!team.busy.exchange(true, std::memory_order_acquire),
        "this team of workers is in a loop already: loops do not nest, and one thread at a time may start them");
  struct Release {
    std::atomic<bool>& busy;
    ~Release() { busy.store(false, std::memory_order_release); }
  } release{team.busy};
  if (count_ == 1) return body(0);
  team.body = &body;
  team.pending.store(count_ - 1, std::memory_order_release);
  {
    const std::scoped_lock lock(team.mutex);
    team.round.fetch_add(1, std::memory_order_acq_rel);
  }
  team.wake.notify_all();
  team.call(0);
  for (int spin = 0; team.pending.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < kSpins) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
  if (team.fault) std::rethrow_exception(std::exchange(team.fault, nullptr));
}

void Workers::split(std::int64_t items, std::int64_t grain,
                    const std::function<void(std::int64_t, std::int64_t)>& body) {
  check(grain > 0, "Workers::split needs a positive grain, not {}", grain);
  if (items <= 0) return;
  const std::int64_t blocks = (items + grain - 1) / grain;
  if (blocks == 1 || count_ == 1) return body(0, items);
  run([&](int worker) {
    const std::int64_t begin = blocks * worker / count_ * grain;
    const std::int64_t end = std::min(items, blocks * (worker + 1) / count_ * grain);
    if (begin < end) body(begin, end);
  });
}

void Workers::each(std::int64_t items, const std::function<void(std::int64_t)>& body) {
  if (items <= 0) return;
  if (items == 1 || count_ == 1) {
    for (std::int64_t item = 0; item < items; ++item) body(item);
    return;
  }
  std::atomic<std::int64_t> next{0};
  run([&](int) {
    for (std::int64_t item = next.fetch_add(1); item < items; item = next.fetch_add(1)) body(item);
  });
}

}  // namespace shoestring
