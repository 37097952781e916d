// What every fuzz target shares. A target is one function of foreign bytes, `fuzz_one`; libFuzzer calls it with bytes
// of its making (the `fuzz` preset), replay.cpp with the seeds (every other build).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace shoestring::fuzz {

using Bytes = std::span<const std::uint8_t>;

/// The target. Defined once in each *_fuzz.cpp; calls `bounded`.
void fuzz_one(Bytes bytes);

/// What reading `bytes` may cost: its CPU time, and the most that it holds in memory at once (looked at under the
/// address sanitizer, which counts).
struct Bounds {
  double seconds = 2;
  double seconds_per_byte = 50e-6;
  std::int64_t memory_bytes = std::int64_t{64} << 20;
  std::int64_t memory_per_byte = 256;
};

/// Runs `read`, which may refuse the bytes by an Error whose code is not `bug`. Anything else ends the process with a
/// line that says what happened: another exception, an Error of ours, more time or memory than `bounds` allow.
void bounded(Bytes bytes, const std::function<void()>& read, const Bounds& bounds = {});

/// Ends the process: what was read contradicts itself.
[[noreturn]] void contradiction(const std::string& what);

inline std::string_view text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// A file that lives in memory, for readers that take a path.
class MemoryFile {
 public:
  explicit MemoryFile(Bytes bytes);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::filesystem::path path() const;

 private:
  int descriptor_ = -1;
};

}  // namespace shoestring::fuzz
