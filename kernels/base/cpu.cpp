#include "kernels/base/cpu.h"

#include <algorithm>
#include <array>
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
  const auto has = [](std::uint32_t reg, int bit) { return (reg >> bit & 1u) != 0; };
  const bool base = has(c, 12) && has(c, 22) && has(c, 28) && has(c, 29);  // FMA, MOVBE, AVX, F16C
  const std::uint64_t state = enabled_state();
  if (__get_cpuid(0x80000001u, &a, &b, &c, &d) == 0) return features;
  const bool lzcnt = has(c, 5);
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return features;
  const bool upper_ymm = (state & 0x6u) == 0x6u;
  features.avx2 = upper_ymm && base && lzcnt && has(b, 3) && has(b, 5) && has(b, 8);  // BMI1, AVX2, BMI2
  const bool registers = (state & 0xE6u) == 0xE6u;                                    // SSE, AVX, opmask, upper zmm
  features.avx512 = features.avx2 && registers && has(b, 16) && has(b, 17) && has(b, 28) && has(b, 30) && has(b, 31);
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
  const char* limit = std::getenv("SHOESTRING_MAX_ISA");
  if (limit == nullptr) return features;
  const std::string_view level = limit;
  constexpr std::array<std::string_view, 4> kLevels = {"portable", "avx2", "avx512", "amx"};
  const auto found = std::find(kLevels.begin(), kLevels.end(), level);
  if (found == kLevels.end()) {
    fail(ExitCode::usage,
         "the environment variable SHOESTRING_MAX_ISA is '{}'; it may be portable, avx2, avx512 or amx", level);
  }
  const auto allows = [&](std::string_view needed) {
    return found >= std::find(kLevels.begin(), kLevels.end(), needed);
  };
  features.avx2 = features.avx2 && allows("avx2");
  features.avx512 = features.avx512 && allows("avx512");
  features.avx512_vbmi = features.avx512_vbmi && allows("avx512");
  features.amx_bf16 = features.amx_bf16 && allows("amx");
  return features;
}

}  // namespace

bool CpuFeatures::vectors() const {
#if defined(__x86_64__)
  return avx2;
#elif defined(__aarch64__)
  return true;
#else
  return false;
#endif
}

std::string CpuFeatures::to_string() const {
  std::string text = avx2 ? "avx2" : "portable";
  if (avx512) text += " avx512";
  if (avx512_vbmi) text += " avx512_vbmi";
  if (amx_bf16) text += " amx_bf16";
  return text;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = limited();
  return features;
}

}  // namespace shoestring
