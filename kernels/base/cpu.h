// What this processor can do, from CPUID and the operating system: the ground for choosing CPU variants.
#pragma once

#include <string>

namespace shoestring {

struct CpuFeatures {
  bool avx2 = false;         ///< x86-64-v3: AVX2, FMA, F16C, BMI, LZCNT, and the system saves the registers
  bool avx512 = false;       ///< x86-64-v4: F, BW, CD, DQ, VL besides, and the system saves the registers
  bool avx512_vbmi = false;  ///< byte permutes: table decoding of FP8
  bool amx_bf16 = false;     ///< tiles of BF16, and the system granted this process the tile state
  /// Whether vector rows run: always on AArch64, from x86-64-v3 on where there is x86.
  bool vectors() const;
  std::string to_string() const;  ///< "avx2 avx512 avx512_vbmi amx_bf16"
};

/// Asked once per process; the first call requests the AMX tile state from the kernel. The environment variable
/// SHOESTRING_MAX_ISA=portable|avx2|avx512|amx lowers what is reported, so that any machine can stand for a lesser one
/// (tests, valgrind, ranks on unlike hosts); another value throws a usage error.
const CpuFeatures& cpu_features();

}  // namespace shoestring
