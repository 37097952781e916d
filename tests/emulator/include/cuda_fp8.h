// Stands for the CUDA toolkit's header of this name: the conversions our kernels ask for, as the toolkit's own host
// code makes them (tests/kernels/quantize_cuda_test.cpp compares dtype.h with it wherever a toolkit is).
#pragma once

#include "cuda_runtime.h"
#include "kernels/base/dtype.h"

namespace emulator {

enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 };
enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE };
using __nv_fp8_storage_t = std::uint8_t;
using __nv_fp8x2_storage_t = std::uint16_t;

inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float x, __nv_saturation_t, __nv_fp8_interpretation_t format) {
  if (x != x) return 0x7F;  // the one NaN of a conversion; dtype.h makes another for E5M2
  return format == __NV_E4M3 ? shoestring::E4M3(x).bits : shoestring::E5M2(x).bits;
}
inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 x, __nv_saturation_t saturation,
                                                     __nv_fp8_interpretation_t format) {
  return static_cast<__nv_fp8x2_storage_t>(__nv_cvt_float_to_fp8(x.x, saturation, format) |
                                           __nv_cvt_float_to_fp8(x.y, saturation, format) << 8);
}

}  // namespace emulator
