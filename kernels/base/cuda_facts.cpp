#include "kernels/base/cuda_facts.h"

#include <fmt/core.h>

#include "kernels/base/check.h"

#if SHOESTRING_CUDA
#include "kernels/base/cuda_check.h"
#endif

namespace shoestring {
namespace {

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

/// "580 or newer" for CUDA 13: the branch of drivers that begins to serve a major version (CUDA release notes, table
/// "CUDA toolkit and minimum required driver version for minor version compatibility").
std::string driver_for(int runtime_version) {
  switch (runtime_version / 1000) {
    case 12: return "driver 525 or newer";
    case 13: return "driver 580 or newer";
    default: return fmt::format("a driver that serves CUDA {}", runtime_version / 1000);
  }
}

}  // namespace

std::string_view built_architectures() {
#if SHOESTRING_CUDA
  return SHOESTRING_CUDA_ARCHITECTURES;
#else
  return {};
#endif
}

CudaFacts cuda_facts() {
  CudaFacts facts;
#if SHOESTRING_CUDA
  facts.architectures = built_architectures();
  cudaRuntimeGetVersion(&facts.runtime_version);
  cudaDriverGetVersion(&facts.driver_version);
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  for (int index = 0; status == cudaSuccess && index < count; ++index) {
    cudaDeviceProp properties{};
    status = cudaGetDeviceProperties(&properties, index);
    facts.devices.push_back(
        {properties.name, properties.major * 10 + properties.minor,
         static_cast<std::int64_t>(properties.totalGlobalMem),
         fmt::format("{:08x}:{:02x}:{:02x}.0", properties.pciDomainID, properties.pciBusID, properties.pciDeviceID)});
  }
  if (status != cudaSuccess && status != cudaErrorNoDevice) {
    facts.devices.clear();
    facts.trouble = cudaGetErrorString(status);
  }
  cudaGetLastError();  // told here: the check of the next launch must not find it
#endif
  return facts;
}

bool has_code_for(std::string_view architectures, int capability) {
  while (!architectures.empty()) {
    int built = 0;
    std::size_t at = 0;
    while (at < architectures.size() && architectures[at] >= '0' && architectures[at] <= '9') {
      built = built * 10 + (architectures[at++] - '0');
    }
    const bool own = at < architectures.size() && architectures[at] == 'a';
    if (own ? built == capability : built / 10 == capability / 10 && built <= capability) return true;
    const std::size_t next = architectures.find_first_of(";,");
    architectures = next == std::string_view::npos ? std::string_view{} : architectures.substr(next + 1);
  }
  return false;
}

// A driver serves every runtime of its own major version, and of earlier ones.
CudaJudgement judge_cuda(const CudaFacts& facts, int index) {
  if (facts.architectures.empty()) {
    return {CudaState::not_built,
            "this program was built without CUDA; build it where nvcc is found, or with SHOESTRING_CUDA=ON"};
  }
  if (facts.driver_version == 0) {
    return {CudaState::no_driver,
            fmt::format("there is no NVIDIA driver on this machine; install {}", driver_for(facts.runtime_version))};
  }
  if (facts.driver_version / 1000 < facts.runtime_version / 1000) {
    return {CudaState::driver_too_old,
            fmt::format("the NVIDIA driver serves CUDA up to {}, and this program needs {}; install {} (nvidia-smi "
                        "shows the present one), or build with an older CUDA",
                        version_text(facts.driver_version), version_text(facts.runtime_version),
                        driver_for(facts.runtime_version))};
  }
  if (!facts.trouble.empty()) {
    return {CudaState::broken, fmt::format("the NVIDIA driver is there, but its devices cannot be asked: {}; look at "
                                           "what nvidia-smi and the kernel's log (dmesg) say",
                                           facts.trouble)};
  }
  if (facts.devices.empty()) {
    return {CudaState::no_device,
            "the NVIDIA driver shows this process no device; look at nvidia-smi, at CUDA_VISIBLE_DEVICES, and whether "
            "the container was given devices"};
  }
  const auto count = static_cast<int>(facts.devices.size());
  if (index < 0 || index >= count) {
    return {CudaState::no_such_device,
            fmt::format("this process sees {} device{}; look at CUDA_VISIBLE_DEVICES", count, count == 1 ? "" : "s")};
  }
  const CudaDeviceFacts& device = facts.devices[static_cast<std::size_t>(index)];
  if (!has_code_for(facts.architectures, device.capability)) {
    return {CudaState::no_code,
            fmt::format("{} is of compute capability {}.{}, and this program has code for {}; build it with "
                        "-DSHOESTRING_CUDA_ARCHITECTURES={}",
                        device.name, device.capability / 10, device.capability % 10, facts.architectures,
                        device.capability)};
  }
  return {};
}

std::int64_t free_device_bytes([[maybe_unused]] int index) {
#if SHOESTRING_CUDA
  std::size_t free = 0;
  std::size_t total = 0;
  cuda_check(cudaSetDevice(index), "cudaSetDevice");
  cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return static_cast<std::int64_t>(free);
#else
  fail(ExitCode::bug, "a build without CUDA was asked for the memory of cuda:{}", index);
#endif
}

}  // namespace shoestring
