#include "kernels/attention_cudnn_library.h"

#include <dlfcn.h>
#include <fmt/core.h>

#include <array>
#include <type_traits>

#include "kernels/base/check.h"

namespace shoestring::attention::cudnn {
namespace {

// Older ones need help with lengths that are no multiple of 128, and know fewer heads.
constexpr std::size_t kLeastVersion = 91600;

Library load() {
  Library lib;
  void* file = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
  if (file == nullptr) {
    const char* reason = dlerror();
    lib.fault = std::string("cuDNN cannot be loaded: ") + (reason == nullptr ? "unknown" : reason);
    return lib;
  }
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(file, name));
    if (function == nullptr) lib.fault = std::string("cuDNN lacks ") + name;
  };
  find(lib.version, "cudnnGetVersion");
  find(lib.status, "cudnnGetErrorString");
  find(lib.last_error, "cudnnGetLastErrorString");
  find(lib.create, "cudnnCreate");
  find(lib.set_stream, "cudnnSetStream");
  find(lib.make, "cudnnBackendCreateDescriptor");
  find(lib.destroy, "cudnnBackendDestroyDescriptor");
  find(lib.set, "cudnnBackendSetAttribute");
  find(lib.get, "cudnnBackendGetAttribute");
  find(lib.finalize, "cudnnBackendFinalize");
  find(lib.execute, "cudnnBackendExecute");
  if (lib.fault.empty() && lib.version() < kLeastVersion) {
    lib.fault = fmt::format("cuDNN {} is there, and {} is the oldest that will do", version_text(lib.version()),
                            version_text(kLeastVersion));
  }
  return lib;
}

}  // namespace

const Library& library() {
  static const Library lib = load();
  return lib;
}

std::string version_text(std::size_t version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

std::string text_of(cudnnStatus_t status) {
  std::array<char, 512> last{};
  library().last_error(last.data(), last.size());
  return fmt::format("{} ({})", library().status(status), last.data());
}

void dnn_check(cudnnStatus_t status, const char* call) {
  if (status != CUDNN_STATUS_SUCCESS) fail(ExitCode::bug, "cuDNN: {} failed: {}", call, text_of(status));
}

}  // namespace shoestring::attention::cudnn
