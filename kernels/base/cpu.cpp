#include "kernels/base/cpu.h"

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "kernels/base/check.h"

#if defined(__x86_64__)
#include <asm/prctl.h>
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace shoestring {
namespace {

#if defined(__x86_64__)
std::uint64_t enabled_state() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32 | low;
}

bool request_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM; older headers lack the name
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

CpuFeatures detect() {
  CpuFeatures features;
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint32_t c = 0;
  std::uint32_t d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c >> 27 & 1u) == 0) return features;  // no OSXSAVE
  const std::uint64_t state = enabled_state();
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return features;
  const auto has = [](std::uint32_t reg, int bit) { return (reg >> bit & 1u) != 0; };
  const bool registers = (state & 0xE6u) == 0xE6u;  // SSE, AVX, opmask, upper zmm
  features.avx512 = registers && has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31);
  features.avx512_vbmi = features.avx512 && has(c, 1);
  const bool tile_state = (state >> 17 & 3u) == 3u;
  features.amx_bf16 = features.avx512_vbmi && tile_state && has(d, 22) && has(d, 24) && request_tiles();
  return features;
}
#else
CpuFeatures detect() { return {}; }
#endif

CpuFeatures limited() {
  CpuFeatures features = detect();
  const char* limit = std::getenv("SHOESTRING_CPU");
  if (limit == nullptr) return features;
  const std::string_view level = limit;
  if (level == "portable") {
    features = {};
  } else if (level == "avx512") {
    features.amx_bf16 = false;
  } else if (level != "amx") {
    fail(ExitCode::usage, "SHOESTRING_CPU={} is not one of portable, avx512, amx", level);
  }
  return features;
}

}  // namespace

std::string CpuFeatures::to_string() const {
  std::string text = avx512 ? "avx512" : "portable";
  if (avx512_vbmi) text += " avx512_vbmi";
  if (amx_bf16) text += " amx_bf16";
  return text;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = limited();
  return features;
}

}  // namespace shoestring
