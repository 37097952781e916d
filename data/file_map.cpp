#include "data/file_map.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <mutex>
#include <utility>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

using Region = FileMap::Region;

// The handler walks the list while other threads map files: a region is never freed, and taken again by a later map.
std::atomic<Region*> g_regions{nullptr};
std::mutex g_mutex;  // of those who map and unmap
struct sigaction g_before {};
std::uintptr_t g_page_bytes = 0;

Region* region_with(std::uintptr_t at) {
  for (Region* one = g_regions.load(std::memory_order_acquire); one != nullptr; one = one->next) {
    if (one->begin.load(std::memory_order_acquire) <= at && at < one->end.load(std::memory_order_acquire)) return one;
  }
  return nullptr;
}

// Whoever finds the zeros finds `lost` too: it is set before they are there.
bool put_zeros(Region& region, std::uintptr_t at) {
  const std::uintptr_t page = at / g_page_bytes * g_page_bytes;
  std::uint64_t none = ~std::uint64_t{0};
  region.lost.compare_exchange_strong(none, page - region.begin.load());
  return ::mmap(reinterpret_cast<void*>(page), g_page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                0) != MAP_FAILED;
}

// Runs in the middle of a read, so it calls nothing that may wait for that thread: mmap is a bare system call.
void on_bus_error(int number, siginfo_t* info, void* context) {
  const int error = errno;
  const auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
  Region* const region = info->si_code > 0 ? region_with(at) : nullptr;  // above 0: by the processor's doing
  if (region != nullptr && put_zeros(*region, at)) {
    errno = error;
    return;
  }
  if ((g_before.sa_flags & SA_SIGINFO) != 0) return g_before.sa_sigaction(number, info, context);
  if (g_before.sa_handler != SIG_DFL && g_before.sa_handler != SIG_IGN) return g_before.sa_handler(number);
  std::signal(number, SIG_DFL);  // what was read is read again, and ends the process
  if (info->si_code <= 0) ::raise(number);
}

// Again where a library has taken the signal since.
void take_signal() {
  g_page_bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction now {};
  ::sigaction(SIGBUS, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == on_bus_error) return;
  g_before = now;
  struct sigaction ours {};
  ours.sa_sigaction = on_bus_error;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigaction(SIGBUS, &ours, nullptr);
}

Region* take_region(std::uintptr_t begin, std::uint64_t bytes) {
  const std::scoped_lock lock(g_mutex);
  take_signal();
  Region* region = g_regions.load();
  while (region != nullptr && region->begin.load() != 0) region = region->next;
  const bool is_new = region == nullptr;
  if (is_new) {
    region = new Region;
    region->next = g_regions.load();
  }
  region->lost.store(~std::uint64_t{0});
  region->end.store(begin + bytes);
  region->begin.store(begin, std::memory_order_release);
  if (is_new) g_regions.store(region, std::memory_order_release);
  return region;
}

}  // namespace

FileMap::FileMap(const FileHandle& file, const std::filesystem::path& path, std::uint64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* const map = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.get(), 0);
  if (map == MAP_FAILED) fail_io(path, "map it");
  data_ = static_cast<const unsigned char*>(map);
  region_ = take_region(reinterpret_cast<std::uintptr_t>(map), bytes);
}

FileMap::~FileMap() {
  if (data_ == nullptr) return;
  {
    const std::scoped_lock lock(g_mutex);
    region_->end.store(0);
    region_->begin.store(0);
  }
  ::munmap(const_cast<unsigned char*>(data_), bytes_);
}

FileMap::FileMap(FileMap&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      region_(std::exchange(other.region_, nullptr)) {}

FileMap& FileMap::operator=(FileMap&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(region_, other.region_);
  return *this;
}

}  // namespace shoestring
