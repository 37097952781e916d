// What the threads of a block do together: barriers, named barriers, and the collectives of a warp.
#include <algorithm>

#include "tests/emulator/machine.h"

namespace emulator {
namespace {

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

/// Whether nobody waits at this barrier, which is remembered.
bool skipped(const Where& where) {
  Machine& m = machine();
  const std::size_t hash = where.line() * std::size_t{31} + reinterpret_cast<std::uintptr_t>(where.file_name()) / 16;
  for (std::size_t i = 0; i < m.sites.size(); ++i) {
    Site& site = m.sites[(hash + i) % m.sites.size()];
    if (site.file == nullptr) {
      site = {where.file_name(), where.line(), false};
      site.skipped = is_skipped(site);
    }
    if (site.line == where.line() && site.file == where.file_name()) return site.skipped;
  }
  fault("more barriers than the emulator remembers", where);
}

}  // namespace

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
