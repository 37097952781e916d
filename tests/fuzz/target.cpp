#include "tests/fuzz/target.h"

#include <fmt/core.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "kernels/base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#define SHOESTRING_COUNTS_MEMORY 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHOESTRING_COUNTS_MEMORY 1
#endif
#endif
#if SHOESTRING_COUNTS_MEMORY
#include <sanitizer/allocator_interface.h>
#endif

namespace shoestring::fuzz {
namespace {

// One thread reads; a reader that makes threads would have to count otherwise.
std::int64_t g_held = 0;
std::int64_t g_most = 0;

#if SHOESTRING_COUNTS_MEMORY
void on_malloc(const volatile void*, std::size_t bytes) {
  g_held += static_cast<std::int64_t>(bytes);
  g_most = std::max(g_most, g_held);
}
void on_free(const volatile void* memory) {
  if (memory == nullptr) return;
  g_held -= static_cast<std::int64_t>(__sanitizer_get_allocated_size(const_cast<const void*>(memory)));
}
[[maybe_unused]] const bool g_counting = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) != 0;
#endif

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

void contradiction(const std::string& what) {
  std::fprintf(stderr, "FINDING: %s\n", what.c_str());
  std::abort();
}

void bounded(Bytes bytes, const std::function<void()>& read, const Bounds& bounds) {
  const double begin = cpu_seconds();
  const std::int64_t held = g_held;
  g_most = g_held;
  try {
    read();
  } catch (const Error& error) {
    if (error.code() == ExitCode::bug) contradiction(fmt::format("foreign bytes broke a contract: {}", error.what()));
    if (std::string_view(error.what()).empty()) contradiction("an error without a text");
  } catch (const std::exception& other) {
    contradiction(fmt::format("an exception that nobody expects: {}", other.what()));
  }
  const auto size = static_cast<double>(bytes.size());
  const double seconds = cpu_seconds() - begin;
  if (seconds > bounds.seconds + bounds.seconds_per_byte * size) {
    contradiction(fmt::format("{:.2f} s of CPU for {} bytes", seconds, bytes.size()));
  }
  const std::int64_t most = g_most - held;
  if (most > bounds.memory_bytes + bounds.memory_per_byte * static_cast<std::int64_t>(bytes.size())) {
    contradiction(fmt::format("{} bytes of memory for {} bytes", most, bytes.size()));
  }
}

MemoryFile::MemoryFile(Bytes bytes) : descriptor_(memfd_create("foreign", MFD_CLOEXEC)) {
  check(descriptor_ >= 0, "no file in memory");
  const ssize_t put = ::write(descriptor_, bytes.data(), bytes.size());
  check(put == static_cast<ssize_t>(bytes.size()), "a file in memory took {} of {} bytes", put, bytes.size());
}

MemoryFile::~MemoryFile() { ::close(descriptor_); }

std::filesystem::path MemoryFile::path() const { return fmt::format("/proc/self/fd/{}", descriptor_); }

}  // namespace shoestring::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  shoestring::fuzz::fuzz_one({data, size});
  return 0;
}
