#include "tests/emulator/grid.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <numeric>
#include <set>

#include "tests/emulator/machine.h"
#include "tests/emulator/symbols.h"

extern "C" {
void __asan_poison_memory_region(const volatile void* begin, std::size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* begin, std::size_t bytes) __attribute__((weak));
}

namespace emulator {

Machine& machine() {
  static auto* const instance = new Machine;  // never destroyed: fibres outlive statics of tests
  return *instance;
}

std::array<char, 128> text(const Site& site) {
  std::array<char, 128> buffer{};
  const char* slash = std::strrchr(site.file, '/');
  std::snprintf(buffer.data(), buffer.size(), "%s:%u", slash == nullptr ? site.file : slash + 1, site.line);
  return buffer;
}

bool is_skipped(const Site& site) { return machine().settings.skipped_barrier == text(site).data(); }

namespace {

std::string text(const Where& where) {
  const std::string file = where.file_name();
  const std::size_t slash = file.rfind('/');
  return (slash == std::string::npos ? file : file.substr(slash + 1)) + ":" + std::to_string(where.line());
}
std::string text(const uint3& v) {
  return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

std::string who_waits_where() {
  Machine& m = machine();
  std::map<std::string, int> at;
  int ended = 0;
  for (unsigned i = 0; i < m.block_threads; ++i) {
    const Thread& t = m.threads[i];
    if (t.fibre.ended()) {
      ++ended;
    } else {
      ++at[t.waits_at == nullptr ? "nothing: they can go on" : std::string(t.waits_at) + " at " + text(t.where)];
    }
  }
  std::string all;
  for (const auto& [place, count] : at) all += "\n  " + std::to_string(count) + " threads wait for " + place;
  if (ended > 0) all += "\n  " + std::to_string(ended) + " threads have ended";
  return all;
}

std::string text(const Stop& stop) {
  std::string all = stop.what;
  if (stop.number >= 0) all += " (" + std::to_string(stop.number) + ")";
  if (stop.other != nullptr) all += std::string(", one of them in ") + stop.other;
  if (stop.number >= 0 || stop.other != nullptr || all.find("nobody") != 0) all += " at " + text(stop.where);
  return all + ", block " + text(stop.place.block) + ", thread " + text(stop.place.thread) + who_waits_where();
}

void thread_body(void*) {
  Machine& m = machine();
  if (m.abandoned) return;
  acquire(&m.launched);
  acquire(&m.blocks[m.block_number % 2]);  // shared memory of the block before: it is another's by now
  (*m.body)();
  release(&m.blocks[(m.block_number + 1) % 2]);
  release(&m.ended);
}

/// The order in which `count` things run.
std::vector<unsigned> turns(unsigned count, Order order) {
  std::vector<unsigned> turn(count);
  std::iota(turn.begin(), turn.end(), 0u);
  if (order == Order::down) std::reverse(turn.begin(), turn.end());
  if (order == Order::scrambled) {
    std::uint64_t state = 0x9E3779B97F4A7C15u;
    for (unsigned i = count; i > 1; --i) {  // Fisher and Yates, by a multiplicative generator
      state = state * 6364136223846793005u + 1442695040888963407u;
      std::swap(turn[i - 1], turn[(state >> 33) % i]);
    }
  }
  return turn;
}

void fill_shared(std::size_t dynamic_bytes) {
  Machine& m = machine();
  const auto fill = [&](void* data, std::size_t bytes) {  // not memset, in which a sanitizer has its hands
    asm volatile("rep stosb" : "+D"(data), "+c"(bytes) : "a"(m.settings.fill) : "memory");
  };
  for (const Symbol& variable : shared_variables()) fill(variable.address, variable.bytes);
  fill(m.dynamic, dynamic_bytes);
}

/// Runs one block to its end, or to a fault.
void run_block(const std::vector<unsigned>& turn) {
  Machine& m = machine();
  while (m.stop.what == nullptr) {
    const long before = m.progress;
    bool alive = false;
    for (const unsigned i : turn) {
      Thread& t = m.threads[i];
      if (t.fibre.ended() || t.barrier >= 0) {
        alive = alive || !t.fibre.ended();
        continue;
      }
      m.running = &t;
      t.fibre.resume();
      if (m.stop.what != nullptr) return;
      if (m.settings.stop_at_race && m.races > 0) return;
      if (t.fibre.ended()) ++m.progress;
      alive = true;
    }
    if (!alive) return;
    if (m.progress == before) m.stop = {.what = "nobody can go on", .place = m.threads[0].place};
  }
}

void begin_block(uint3 block, dim3 grid, dim3 dim) {
  Machine& m = machine();
  for (Barrier& barrier : m.barrier) barrier.arrived = 0;
  for (unsigned i = 0; i < m.block_threads; ++i) {
    Thread& t = m.threads[i];
    t.waits_at = nullptr;
    t.barrier = -1;
    t.place = {{i % dim.x, i / dim.x % dim.y, i / dim.x / dim.y}, block, dim, grid};
    t.fibre.begin(thread_body, nullptr);
    if (i % kWarp == 0) {
      for (Collective& c : m.warps[i / kWarp]) c.mask = 0;
    }
  }
}

void check_launch(dim3 grid, dim3 block, std::size_t dynamic_bytes) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64) {
    throw Fault("a block of " + std::to_string(threads) + " threads");
  }
  if (grid.x == 0 || grid.x > 0x7FFFFFFFu || grid.y == 0 || grid.y > 65535 || grid.z == 0 || grid.z > 65535) {
    throw Fault("a grid of " + text(uint3{grid.x, grid.y, grid.z}) + " blocks");
  }
  if (dynamic_bytes > kMaxDynamicShared) throw Fault(std::to_string(dynamic_bytes) + " bytes of dynamic shared memory");
}

}  // namespace

Settings& settings() { return machine().settings; }
std::vector<std::string> barriers_seen() {
  std::set<std::string> all;  // one for each place, of which each instance of a template has its own
  for (const Site& site : machine().sites) {
    if (site.file != nullptr) all.insert(text(site).data());
  }
  return {all.begin(), all.end()};
}
std::vector<const void*> kernels_seen() { return {machine().kernels.begin(), machine().kernels.end()}; }
int races_seen() { return machine().races; }
void clear_history() {
  machine().sites = {};
  machine().kernels.clear();
  machine().races = 0;
}
const Place& here() { return machine().running->place; }
void* dynamic_shared() { return machine().dynamic; }

void run_grid(dim3 grid, dim3 block, std::size_t dynamic_bytes, const void* kernel,
              const std::function<void()>& thread) {
  check_launch(grid, block, dynamic_bytes);
  Machine& m = machine();
  m.kernels.insert(kernel);
  m.body = &thread;
  m.stop = {};
  for (Site& site : m.sites) site.skipped = site.file != nullptr && is_skipped(site);
  m.block_threads = block.x * block.y * block.z;
  while (m.threads.size() < m.block_threads) m.threads.emplace_back();
  if (m.dynamic == nullptr) {
    m.dynamic = static_cast<char*>(
        mmap(nullptr, kMaxDynamicShared, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  if (__asan_poison_memory_region != nullptr) {
    __asan_poison_memory_region(m.dynamic, kMaxDynamicShared);
    __asan_unpoison_memory_region(m.dynamic, dynamic_bytes);
  }
  release(&m.launched);
  const std::vector<unsigned> turn = turns(m.block_threads, m.settings.order);
  for (const unsigned number : turns(grid.x * grid.y * grid.z, m.settings.order)) {
    ++m.block_number;
    begin_block({number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y}, grid, block);
    fill_shared(dynamic_bytes);
    run_block(turn);
    if (m.stop.what != nullptr || (m.settings.stop_at_race && m.races > 0)) break;
  }
  const std::string reason = m.stop.what == nullptr ? std::string() : text(m.stop);
  m.abandoned = true;
  for (unsigned i = 0; i < m.block_threads; ++i) {
    m.running = &m.threads[i];
    if (!m.running->fibre.ended()) m.running->fibre.resume();
  }
  m.abandoned = false;
  acquire(&m.ended);
  if (m.stop.what != nullptr) throw Fault(reason);
}

}  // namespace emulator

/// ThreadSanitizer calls it, where it is linked, after each report.
extern "C" void __tsan_on_report(const void*) { ++emulator::machine().races; }

/// A report is counted, and judged by the test that provoked it; each one, also a second of one place.
extern "C" const char* __tsan_default_options() {
  return "exitcode=0:suppress_equal_stacks=0:suppress_equal_addresses=0:report_thread_leaks=0";
}
