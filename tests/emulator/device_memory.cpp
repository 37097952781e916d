#include "tests/emulator/device_memory.h"

#include <execinfo.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>
#include <vector>

extern "C" {
void __asan_poison_memory_region(const volatile void* begin, std::size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* begin, std::size_t bytes) __attribute__((weak));
}

namespace emulator {
namespace {

constexpr std::size_t kPage = 4096;

struct Region {
  std::mutex mutex;
  char* begin = nullptr;
  std::size_t used = 0;                              // from the beginning, in pages
  std::map<const char*, std::size_t> live{};         // bytes asked for
  std::map<std::size_t, std::vector<char*>> free{};  // by bytes in pages
  int open = 0;
};

std::size_t in_pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage + kPage; }

void poison(char* begin, std::size_t bytes) {
  if (__asan_poison_memory_region != nullptr) __asan_poison_memory_region(begin, bytes);
}

Region& region();

/// In the handler of a fault: nothing that allocates.
void tell(const char* address) {
  Region& r = region();
  char text[160];
  const auto after = r.live.upper_bound(address);
  int length = 0;
  if (after == r.live.begin()) {
    length = std::snprintf(text, sizeof text, "emulator: host code touched device memory that nobody holds\n");
  } else {
    const auto& [begin, bytes] = *std::prev(after);
    length = std::snprintf(text, sizeof text, "emulator: host code touched device memory, byte %zu of %zu, at\n",
                           static_cast<std::size_t>(address - begin), bytes);
  }
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, static_cast<std::size_t>(length));
  void* frames[24];
  backtrace_symbols_fd(frames, backtrace(frames, 24), STDERR_FILENO);
}

void on_fault(int signal, siginfo_t* info, void*) {
  const Region& r = region();
  const auto* address = static_cast<const char*>(info->si_addr);
  if (address >= r.begin && address < r.begin + kDeviceMemoryBytes) tell(address);
  std::signal(signal, SIG_DFL);  // and once more, for whoever waits for the process
}

Region* made() {
  auto* const r = new Region;  // never destroyed: statics may free after it would have gone
  r->begin = static_cast<char*>(
      mmap(nullptr, kDeviceMemoryBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  void* frames[1];
  backtrace(frames, 1);  // loads what it needs now
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
  return r;
}

Region& region() {
  static Region* const instance = made();
  return *instance;
}

void protect(Region& r, int how) {
  if (r.used > 0) mprotect(r.begin, r.used, how);
}

}  // namespace

void* take_device_memory(std::size_t bytes) {
  Region& r = region();
  const std::scoped_lock lock(r.mutex);
  const std::size_t size = in_pages(bytes);
  char* data = nullptr;
  if (auto& spare = r.free[size]; !spare.empty()) {
    data = spare.back();
    spare.pop_back();
  } else {
    if (r.used + size > kDeviceMemoryBytes) return nullptr;
    data = r.begin + r.used;
    r.used += size;
    if (r.open > 0) protect(r, PROT_READ | PROT_WRITE);
  }
  r.live[data] = bytes;
  poison(data + bytes, size - bytes);
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(data, bytes);
  return data;
}

void give_device_memory(void* data) {
  Region& r = region();
  const std::scoped_lock lock(r.mutex);
  const auto block = r.live.find(static_cast<const char*>(data));
  if (block == r.live.end()) return;
  const std::size_t size = in_pages(block->second);
  poison(static_cast<char*>(data), size);
  r.free[size].push_back(static_cast<char*>(data));
  r.live.erase(block);
}

std::size_t device_memory_taken() {
  Region& r = region();
  const std::scoped_lock lock(r.mutex);
  std::size_t taken = 0;
  for (const auto& [begin, bytes] : r.live) taken += in_pages(bytes);
  return taken;
}

bool is_device_memory(const void* data) {
  Region& r = region();
  const std::scoped_lock lock(r.mutex);
  const auto* address = static_cast<const char*>(data);
  const auto after = r.live.upper_bound(address);
  return after != r.live.begin() && address < std::prev(after)->first + std::prev(after)->second;
}

DeviceAccess::DeviceAccess() {
  Region& r = region();
  const std::scoped_lock lock(r.mutex);
  if (r.open++ == 0) protect(r, PROT_READ | PROT_WRITE);
}
DeviceAccess::~DeviceAccess() {
  Region& r = region();
  const std::scoped_lock lock(r.mutex);
  if (--r.open == 0) protect(r, PROT_NONE);
}

}  // namespace emulator
