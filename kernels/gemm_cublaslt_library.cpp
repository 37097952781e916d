#include "kernels/gemm_cublaslt_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "kernels/base/check.h"
#include "kernels/base/cuda_check.h"

namespace shoestring::gemm_detail::cublaslt {
namespace {

Library load() {
  Library lib;
  void* file = nullptr;
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}) {
    if (file == nullptr) file = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (file == nullptr) {
    const char* reason = dlerror();
    lib.fault = std::string("cuBLASLt cannot be loaded: ") + (reason == nullptr ? "unknown" : reason);
    return lib;
  }
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(file, name));
    return function != nullptr;
  };
  const auto need = [&](auto& function, const char* name) {
    if (!find(function, name)) lib.fault = std::string("cuBLASLt lacks ") + name;
  };
  need(lib.create, "cublasLtCreate");
  need(lib.version, "cublasLtGetVersion");
  need(lib.status, "cublasLtGetStatusString");
  need(lib.desc_create, "cublasLtMatmulDescCreate");
  need(lib.desc_destroy, "cublasLtMatmulDescDestroy");
  need(lib.desc_set, "cublasLtMatmulDescSetAttribute");
  need(lib.layout_create, "cublasLtMatrixLayoutCreate");
  need(lib.layout_destroy, "cublasLtMatrixLayoutDestroy");
  need(lib.preference_create, "cublasLtMatmulPreferenceCreate");
  need(lib.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  need(lib.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  need(lib.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  need(lib.matmul, "cublasLtMatmul");
  find(lib.grouped_layout_create, "cublasLtGroupedMatrixLayoutCreate");
  return lib;
}

}  // namespace

const Library& library() {
  static const Library lib = load();
  return lib;
}

void lt_check(cublasStatus_t status, const char* call) {
  check(status == CUBLAS_STATUS_SUCCESS, "{} failed: {} ({})", call, library().status(status),
        static_cast<int>(status));
}

cudaDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return CUDA_R_32F;
    case DType::bf16: return CUDA_R_16BF;
    case DType::e4m3: return CUDA_R_8F_E4M3;
    case DType::e5m2: return CUDA_R_8F_E5M2;
    default: fail(ExitCode::bug, "cuBLASLt row given {}", name(dtype));
  }
}

int compute_capability(int device) {
  int major = 0;
  int minor = 0;
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  return major * 10 + minor;
}

Descriptors::Descriptors(bool turn_left, bool turn_right) {
  cublasLtMatmulDesc_t made = nullptr;
  lt_check(library().desc_create(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  product.reset(made);
  set(CUBLASLT_MATMUL_DESC_TRANSA, turn_left ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, turn_right ? CUBLAS_OP_T : CUBLAS_OP_N);
}

Preference::Preference(std::int64_t workspace_bytes) {
  cublasLtMatmulPreference_t made = nullptr;
  lt_check(library().preference_create(&made), "cublasLtMatmulPreferenceCreate");
  made_.reset(made);
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_bytes));
}

Choice choice_for(int device, const std::vector<std::int64_t>& key, const Descriptors& d, std::int64_t workspace_bytes,
                  const std::function<void(Preference&)>& prefer) {
  static std::mutex mutex;
  static std::map<int, cublasLtHandle_t> handles;
  static std::map<std::vector<std::int64_t>, std::optional<cublasLtMatmulAlgo_t>> algorithms;
  const std::scoped_lock lock(mutex);
  cuda_check(cudaSetDevice(device), "cudaSetDevice");
  cublasLtHandle_t& handle = handles[device];
  if (handle == nullptr) lt_check(library().create(&handle), "cublasLtCreate");
  if (const auto known = algorithms.find(key); known != algorithms.end()) return {handle, known->second};
  Preference preference(workspace_bytes);
  prefer(preference);
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  const cublasStatus_t status = library().heuristic(handle, d.product.get(), d.left.get(), d.right.get(),
                                                    d.result.get(), d.result.get(), preference.get(), 1, &best, &found);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) lt_check(status, "cublasLtMatmulAlgoGetHeuristic");
  const bool any = status != CUBLAS_STATUS_NOT_SUPPORTED && found > 0;
  return {handle, algorithms[key] = any ? std::optional(best.algo) : std::nullopt};
}

Workspace take_workspace(Arena& scratch) {
  const std::int64_t left = scratch.left_bytes() / 64 * 64;
  const std::int64_t taken = std::min(left, kScratchBytes);
  return workspace_of(scratch.take(DType::u8, {taken}).data, taken);
}

}  // namespace shoestring::gemm_detail::cublaslt
