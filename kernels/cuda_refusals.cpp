#include "kernels/cuda_refusals.h"

#include <array>
#include <atomic>

#include "kernels/base/check.h"
#include "kernels/base/cuda_check.h"
#include "kernels/base/cuda_facts.h"

namespace shoestring {
namespace {

/// Compute capability of a device, asked once: 90 for sm_90.
int capability(int device) {
  static std::array<std::atomic<int>, 64> known{};
  const auto slot = static_cast<std::size_t>(device);
  check(slot < known.size(), "device {} of at most {}", device, known.size());
  if (const int value = known[slot].load(std::memory_order_relaxed); value != 0) return value;
  int major = 0;
  int minor = 0;
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  known[slot] = major * 10 + minor;
  return major * 10 + minor;
}

}  // namespace

std::string needs_cuda(const Stream& stream, std::initializer_list<ConstTensorView> tensors, bool floating) {
  const Device device = stream.device();
  if (device.kind != DeviceKind::cuda) return "runs on a CUDA stream only";
  if (const int has = capability(device.index); !has_code_for(built_architectures(), has)) {
    return fmt::format("{} is of compute capability {}.{}, and this build has code for {}", to_string(device), has / 10,
                       has % 10, built_architectures());
  }
  for (const ConstTensorView& tensor : tensors) {
    if (!tensor.empty() && tensor.device != device) {
      return fmt::format("{} is on {}, the stream on {}", tensor.to_string(), to_string(tensor.device),
                         to_string(device));
    }
  }
  if (floating && tensors.begin()->dtype != DType::f32 && tensors.begin()->dtype != DType::bf16) {
    return std::string(name(tensors.begin()->dtype)) + " is not f32 or bf16";
  }
  return {};
}

bool reaches(Device device, const void* data) {
  cudaPointerAttributes attributes{};
  cuda_check(cudaPointerGetAttributes(&attributes, data), "cudaPointerGetAttributes");
  if (attributes.type == cudaMemoryTypeHost || attributes.type == cudaMemoryTypeManaged) return true;
  return attributes.type == cudaMemoryTypeDevice && attributes.device == device.index;
}

}  // namespace shoestring
