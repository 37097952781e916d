// What this process can know of CUDA before it takes anything of a device: the program, the driver, the devices. Facts
// are gathered in one place and judged in another, so that every judgement is tested where there is no device.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

struct CudaDeviceFacts {
  std::string name;
  int capability = 0;            ///< 90 for sm_90
  std::int64_t total_bytes = 0;  ///< of its memory
  std::string pci = {};          ///< where it is in the machine: "00000000:01:00.0"
};

struct CudaFacts {
  std::string architectures;  ///< that the program has code for: "90a", "80;89;90a"; empty: built without CUDA
  int runtime_version = 0;    ///< that it was built with: 13010 is 13.1
  int driver_version = 0;     ///< the newest runtime that the driver serves; 0: there is no driver
  std::string trouble = {};   ///< what CUDA said where the devices could not be asked
  std::vector<CudaDeviceFacts> devices;  ///< that this process sees
};

/// Of this process. Never throws.
CudaFacts cuda_facts();

enum class CudaState : std::uint8_t {
  usable,
  // Nothing is there:
  not_built,
  no_driver,
  no_device,
  // Something is, and does not serve:
  driver_too_old,
  broken,
  no_such_device,
  no_code,
};
inline bool nothing_there(CudaState state) {
  return state == CudaState::not_built || state == CudaState::no_driver || state == CudaState::no_device;
}

struct CudaJudgement {
  CudaState state = CudaState::usable;
  std::string text = {};  ///< what stands in the way and what to do, without a device's name before it; empty if usable
};
/// Whether a run can be on device `index`.
CudaJudgement judge_cuda(const CudaFacts& facts, int index);

/// Whether code for `architectures` runs on a device. An architecture's own code ("90a") runs on it alone, that of a
/// family ("100f") on later minor versions of the same major one, as other code does.
bool has_code_for(std::string_view architectures, int capability);
/// What this program has code for; empty without CUDA.
std::string_view built_architectures();

/// Memory of a device that nobody has taken; makes the device's context. Throws Error(bug) where CUDA says no.
std::int64_t free_device_bytes(int index);

}  // namespace shoestring
