#include "kernels/base/variant.h"

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

// The one registry of choices in a process: what is pinned, what was announced.
struct Choices {
  std::mutex mutex;
  std::mutex telling;  // an observer hears one choice at a time
  std::map<std::string, std::string, std::less<>> pins;
  std::set<std::pair<std::string, std::string>> announced;
  VariantObserver observer;
};

Choices& choices() {
  static Choices instance;
  return instance;
}

std::atomic<bool> g_any_pin{false};
std::atomic<int> g_observers{0};  // how many there have been: a new one hears every choice again
std::atomic<bool> g_reference_allowed{true};

}  // namespace

void observe_variants(VariantObserver observer) {
  const std::scoped_lock lock(choices().mutex);
  choices().observer = std::move(observer);
  choices().announced.clear();
  ++g_observers;
}

void allow_reference(bool allowed) { g_reference_allowed = allowed; }

void pin_variant(std::string_view op, std::string_view variant) {
  const std::scoped_lock lock(choices().mutex);
  if (variant.empty()) {
    choices().pins.erase(std::string(op));
  } else {
    choices().pins[std::string(op)] = variant;
  }
  g_any_pin = !choices().pins.empty();
}

namespace variant_detail {

std::string pinned(std::string_view op) {
  if (!g_any_pin.load(std::memory_order_relaxed)) return {};
  const std::scoped_lock lock(choices().mutex);
  const auto pin = choices().pins.find(op);
  return pin == choices().pins.end() ? std::string() : pin->second;
}

void chosen(std::string_view op, std::string_view variant) {
  thread_local std::set<std::pair<std::string_view, std::string_view>> seen;  // names are literals: they outlive us
  thread_local int seen_by = 0;
  if (const int observers = g_observers.load(std::memory_order_acquire); observers != seen_by) {
    seen.clear();
    seen_by = observers;
  }
  if (!seen.emplace(op, variant).second) return;
  VariantObserver observer;
  {
    const std::scoped_lock lock(choices().mutex);
    if (!choices().announced.emplace(op, variant).second) return;
    observer = choices().observer;
  }
  const std::scoped_lock one_at_a_time(choices().telling);
  if (observer) observer(op, variant);
}

bool reference_allowed() { return g_reference_allowed.load(std::memory_order_relaxed); }

void none_fits(std::string_view op, const std::string& reasons) {
  fail(ExitCode::bug, "no variant of {} fits these arguments:{}", op, reasons);
}

}  // namespace variant_detail
}  // namespace shoestring
