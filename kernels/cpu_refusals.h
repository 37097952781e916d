// Why a CPU row of a variant table declines; what every op would say in the same words.
#pragma once

#include <string>

#include "kernels/base/cpu.h"
#include "kernels/base/device.h"
#include "kernels/base/dtype.h"

namespace shoestring {

/// For reference rows: anything a CPU stream can reach.
template <class Args>
std::string needs_cpu(const Args& args) {
  return args.stream.device().kind == DeviceKind::cpu ? std::string() : "runs on a CPU stream only";
}

/// For vector rows (`*_simd.cpp`); `format` is that of the activations.
template <class Args>
std::string needs_simd(const Args& args, DType format) {
  if (args.stream.device().kind != DeviceKind::cpu) return "runs on a CPU stream only";
  if (!cpu_features().vectors()) return "the processor has no AVX2 and FMA (x86-64-v3)";
  if (format != DType::f32 && format != DType::bf16) return std::string(name(format)) + " is not f32 or bf16";
  return {};
}

}  // namespace shoestring
