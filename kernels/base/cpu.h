// What this processor can do, from CPUID and the operating system: the ground for choosing CPU variants.
#pragma once

#include <string>

namespace shoestring {

struct CpuFeatures {
  bool avx512 = false;            ///< F, BW, VL, DQ, and the system saves the registers
  bool avx512_vbmi = false;       ///< byte permutes: table decoding of FP8
  bool amx_bf16 = false;          ///< tiles of BF16, and the system granted this process the tile state
  std::string to_string() const;  ///< "avx512 avx512_vbmi amx_bf16"
};

/// Asked once per process; the first call requests the AMX tile state from the kernel. The environment variable
/// SHOESTRING_CPU=portable|avx512|amx lowers what is reported (valgrind, cross-checks).
const CpuFeatures& cpu_features();

}  // namespace shoestring
