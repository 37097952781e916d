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

#include "tests/emulator/fibre.h"
#include "tests/emulator/symbols.h"

extern "C" {
void __asan_poison_memory_region(const volatile void* begin, std::size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* begin, std::size_t bytes) __attribute__((weak));
}

namespace emulator {
namespace {

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
  const char* file;
  unsigned line;
  bool skipped;
};

// The one device. A launch runs to its end before it returns, so that there is one of everything.
struct Machine {
  Settings settings;
  std::array<Site, 256> sites{};  // of barriers
  std::size_t site_count = 0;
  bool abandoned = false;  // what still waits shall only say what it wrote
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
Machine& machine() {
  static auto* const instance = new Machine;  // never destroyed: fibres outlive statics of tests
  return *instance;
}

std::string text(const Where& where) {
  const std::string file = where.file_name();
  const std::size_t slash = file.rfind('/');
  return (slash == std::string::npos ? file : file.substr(slash + 1)) + ":" + std::to_string(where.line());
}
std::string text(const uint3& v) {
  return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

/// Yields. In a launch that has ended early the thread comes back once, to order its writes before what the host does.
void leave() {
  Machine& m = machine();
  Thread& me = *m.running;
  me.fibre.yield();
  if (!m.abandoned) return;
  release(&m.ended);
  me.fibre.yield();
}

/// Ends the launch from inside a thread, which is not resumed again.
[[noreturn]] void fault(const char* what, const Where& where, int number = -1, const char* other = nullptr) {
  Machine& m = machine();
  m.stop = {what, number, other, where, m.running->place};
  leave();
  __builtin_unreachable();
}

void wait(const char* what, const Where& where) {
  Thread& t = *machine().running;
  t.waits_at = what;
  t.where = where;
  leave();
  t.waits_at = nullptr;
}

/// "file:line", the file without its folders; in a buffer, because fibres ask too.
std::array<char, 128> text(const Site& site) {
  std::array<char, 128> buffer{};
  const char* slash = std::strrchr(site.file, '/');
  std::snprintf(buffer.data(), buffer.size(), "%s:%u", slash == nullptr ? site.file : slash + 1, site.line);
  return buffer;
}

bool is_skipped(const Site& site) { return machine().settings.skipped_barrier == text(site).data(); }

/// Whether nobody waits at this barrier, which is remembered.
bool skipped(const Where& where) {
  Machine& m = machine();
  for (std::size_t i = 0; i < m.site_count; ++i) {
    const Site& site = m.sites[i];
    if (site.line == where.line() && site.file == where.file_name()) return site.skipped;
  }
  Site site{where.file_name(), where.line(), false};
  site.skipped = is_skipped(site);
  if (m.site_count < m.sites.size()) m.sites[m.site_count++] = site;
  return site.skipped;
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
  for (std::size_t i = 0; i < machine().site_count; ++i) all.insert(text(machine().sites[i]).data());
  return {all.begin(), all.end()};
}
std::vector<const void*> kernels_seen() { return {machine().kernels.begin(), machine().kernels.end()}; }
int races_seen() { return machine().races; }
void clear_history() {
  machine().site_count = 0;
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
  for (std::size_t i = 0; i < m.site_count; ++i) m.sites[i].skipped = is_skipped(m.sites[i]);
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

int barrier(int id, int threads, const Where& where, bool vote) {
  Machine& m = machine();
  if (skipped(where)) return vote ? 1 : 0;
  Thread& me = *m.running;
  if (id < 0 || id >= kNamedBarriers) fault("a barrier that does not exist", where, id);
  if (threads == 0) threads = static_cast<int>(m.block_threads);
  if (threads % static_cast<int>(kWarp) != 0 && id != 0) fault("a named barrier of a part of a warp", where);
  Barrier& b = m.barrier[static_cast<std::size_t>(id)];
  if (b.arrived == 0) {
    b.expected = threads;
    b.line = where.line();
  } else if (b.line != where.line() || b.expected != threads) {
    me.waits_at = "a barrier";
    me.where = where;
    fault("threads meet at different places of one barrier", where, id);
  }
  char* const order = &b.order[b.generation % 2];
  int& votes = b.votes[b.generation % 2];
  if (b.arrived == 0) votes = 0;
  votes += vote ? 1 : 0;
  release(order);
  ++m.progress;
  if (++b.arrived < b.expected) {
    me.barrier = id;
    wait(id == 0 ? "__syncthreads" : "a named barrier", where);
  } else {
    b.arrived = 0;
    ++b.generation;
    for (unsigned i = 0; i < m.block_threads; ++i) {
      if (m.threads[i].barrier == id) m.threads[i].barrier = -1;
    }
    wait("__syncthreads", where);  // the others first, if it is their turn: nobody has a lead
  }
  acquire(order);
  return votes;
}

void exchange(std::uint32_t mask, std::uint64_t mine, const char* kind, bool ordered, const Where& where,
              std::uint64_t (&all)[32]) {
  Machine& m = machine();
  Thread& me = *m.running;
  const dim3 dim = me.place.block_dim;
  const unsigned number = me.place.thread.x + dim.x * (me.place.thread.y + dim.y * me.place.thread.z);
  const unsigned lane = number % kWarp;
  if (ordered && skipped(where)) return;
  if ((mask >> lane & 1u) == 0) fault("a lane calls a collective whose mask leaves it out", where);
  auto& open = m.warps[number / kWarp];
  const auto find = [&](std::uint32_t of) {
    return std::find_if(open.begin(), open.end(), [&](const Collective& c) { return c.mask == of; });
  };
  auto c = find(mask);
  while (c != open.end() && c->arrived == mask) {  // lanes still leave the one before
    wait(kind, where);
    c = find(mask);
  }
  if (c == open.end()) {
    c = find(0);
    c->mask = mask;
    c->arrived = c->left = 0;
    c->kind = kind;
    c->where = where;
    ++c->uses;
  }
  if (c->kind != kind || c->where.line() != where.line()) {
    fault("lanes of one mask are in different collectives", where, static_cast<int>(lane), c->kind);
  }
  c->value[lane] = mine;
  c->arrived |= 1u << lane;
  char* const order = &c->order[c->uses % 2];
  if (ordered) release(order);
  ++m.progress;
  while (c->arrived != mask) {
    for (unsigned l = 0; l < kWarp; ++l) {
      const unsigned other = number / kWarp * kWarp + l;
      if ((mask >> l & 1u) == 0 || (c->arrived >> l & 1u) != 0) continue;
      if (other >= m.block_threads || m.threads[other].fibre.ended()) {
        fault("a collective names a lane that has ended or never was", where, static_cast<int>(l));
      }
    }
    wait(kind, where);
  }
  ++m.progress;
  std::copy(std::begin(c->value), std::end(c->value), all);
  c->left |= 1u << lane;
  if (c->left == mask) c->mask = 0;
  if (ordered) acquire(order);
}

}  // namespace emulator

/// ThreadSanitizer calls it, where it is linked, after each report.
extern "C" void __tsan_on_report(const void*) { ++emulator::machine().races; }

/// A report is counted, and judged by the test that provoked it; each one, also a second of one place.
extern "C" const char* __tsan_default_options() {
  return "exitcode=0:suppress_equal_stacks=0:suppress_equal_addresses=0:report_thread_leaks=0";
}
