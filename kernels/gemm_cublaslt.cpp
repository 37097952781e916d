// Dense products through cuBLASLt. The library (some hundred megabytes) is loaded at the first product that may need
// it, so that a program built with CUDA starts, and starts fast, where there is none.
//
// cuBLASLt thinks in columns: a row-major c [m, n] is its column-major [n, m], so its left operand is our b and its
// right one our a. An operand [rows, k] with k contiguous is its [k, rows]; with rows contiguous its [rows, k].
#include "kernels/gemm_cublaslt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>

#include "kernels/base/check.h"
#include "kernels/base/cuda_check.h"

namespace shoestring::gemm_detail::cublaslt {
namespace {

constexpr std::int64_t kWorkspaceBytes = std::int64_t{32} << 20;
constexpr std::size_t kBlockScalesFrom = 120900;  // cuBLASLt 12.9

/// The functions of the library that are used here, by name.
struct Library {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtGetVersion) version = nullptr;
  decltype(&cublasLtGetStatusString) status = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  std::string fault;  ///< why it could not be loaded; empty when it was
};

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
    if (function == nullptr) lib.fault = std::string("cuBLASLt lacks ") + name;
  };
  find(lib.create, "cublasLtCreate");
  find(lib.version, "cublasLtGetVersion");
  find(lib.status, "cublasLtGetStatusString");
  find(lib.desc_create, "cublasLtMatmulDescCreate");
  find(lib.desc_destroy, "cublasLtMatmulDescDestroy");
  find(lib.desc_set, "cublasLtMatmulDescSetAttribute");
  find(lib.layout_create, "cublasLtMatrixLayoutCreate");
  find(lib.layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(lib.preference_create, "cublasLtMatmulPreferenceCreate");
  find(lib.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(lib.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(lib.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(lib.matmul, "cublasLtMatmul");
  return lib;
}

const Library& library() {
  static const Library lib = load();
  return lib;
}

void lt_check(cublasStatus_t status, const char* call) {
  check(status == CUBLAS_STATUS_SUCCESS, "{} failed: {} ({})", call, library().status(status),
        static_cast<int>(status));
}

/// What decides the algorithm: extents, formats, orientations, strides, scales, accumulation, bias, workspace, device.
using Key = std::array<std::int64_t, 16>;

/// One handle per device, and the algorithms chosen so far. Guarded by `mutex`.
struct Session {
  std::mutex mutex;
  std::map<int, cublasLtHandle_t> handles;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms;
};

Session& session() {
  static Session instance;
  return instance;
}

bool byte_format(DType dtype) { return dtype == DType::e4m3 || dtype == DType::e5m2; }

cudaDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return CUDA_R_32F;
    case DType::bf16: return CUDA_R_16BF;
    case DType::e4m3: return CUDA_R_8F_E4M3;
    case DType::e5m2: return CUDA_R_8F_E5M2;
    default: fail(ExitCode::bug, "cuBLASLt row given {}", name(dtype));
  }
}

/// An operand [rows, k] in cuBLASLt's terms.
struct LtOperand {
  bool k_contiguous = false;
  std::int64_t leading = 0;
};

LtOperand operand_of(const ConstTensorView& view) {
  if (view.strides[1] == 1 || view.shape[1] <= 1) return {true, std::max(view.strides[0], view.shape[1])};
  if (view.strides[0] == 1 || view.shape[0] <= 1) return {false, view.strides[1]};
  return {false, 0};
}

cublasLtMatmulMatrixScale_t scale_mode(const ConstScaledView& view) {
  if (view.granularity == kRowTile128) return CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
  if (view.granularity == kBlock128) return CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
  return CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
}

std::string refuses_scales(const ConstScaledView& view, const char* which) {
  const std::string prefix = std::string("scales of ") + which + " ";
  if (view.scales.dtype != DType::f32) return prefix + "are not f32";
  const Strides& s = view.scales.strides;
  const std::int64_t blocks = (view.values.shape[1] + 127) / 128;
  if (view.granularity == kPerTensor) return {};
  if (view.granularity == kRowTile128) {
    return s[0] == 1 && (blocks == 1 || s[1] == view.values.shape[0]) ? "" : prefix + "are not contiguous along rows";
  }
  if (view.granularity != kBlock128) return prefix + "are neither per tensor, 1x128 nor 128x128";
  const bool padded = s[1] == 1 && (view.scales.shape[0] == 1 || s[0] == (blocks + 3) / 4 * 4);
  return padded ? "" : prefix + "are not contiguous along k in lines padded to 4";
}

std::string refuses_bytes(const GemmArgs& args) {
  const ConstTensorView& a = args.a.values;
  const ConstTensorView& b = args.b.values;
  if (a.dtype == DType::e5m2 && b.dtype == DType::e5m2) return "e5m2 by e5m2 is not supported";
  if (!operand_of(a).k_contiguous || !operand_of(b).k_contiguous) return "8-bit operands must have k contiguous";
  if (a.shape[1] % 16 != 0 || a.strides[0] % 16 != 0 || b.strides[0] % 16 != 0) return "k and strides not of 16";
  if (a.shape[0] % 8 != 0 || b.shape[0] % 8 != 0) return "m or n is not a multiple of 8";
  for (const auto& [view, which] : {std::pair{&args.a, "a"}, std::pair{&args.b, "b"}}) {
    if (std::string reason = refuses_scales(*view, which); !reason.empty()) return reason;
  }
  const bool scalar = args.a.granularity == kPerTensor;
  if (scalar != (args.b.granularity == kPerTensor)) return "one operand has a single scale, the other has tiles";
  if (args.a.granularity == kBlock128 && args.b.granularity == kBlock128) return "128x128 by 128x128 scales";
  if (scalar) return {};
  if (library().version() < kBlockScalesFrom) return "block scales need cuBLASLt 12.9";
  int major = 0;
  int minor = 0;
  const int device = args.c.device.index;
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  return major == 9 && minor == 0 ? "" : "block scales of 128 run on sm_90 only";
}

/// Descriptors of one product; freed with it.
class Descriptors {
 public:
  Descriptors(const GemmArgs& args, const LtOperand& a, const LtOperand& b) {
    const std::int64_t m = args.c.shape[0];
    const std::int64_t n = args.c.shape[1];
    const std::int64_t k = args.a.values.shape[1];
    lt_check(library().desc_create(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    const cublasOperation_t left_turn = b.k_contiguous ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t right_turn = a.k_contiguous ? CUBLAS_OP_N : CUBLAS_OP_T;
    set(CUBLASLT_MATMUL_DESC_TRANSA, left_turn);
    set(CUBLASLT_MATMUL_DESC_TRANSB, right_turn);
    if (byte_format(args.a.values.dtype)) {
      set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, args.b.scales.data);
      set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, args.a.scales.data);
      set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, static_cast<std::int32_t>(scale_mode(args.b)));
      set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, static_cast<std::int32_t>(scale_mode(args.a)));
    }
    if (!args.bias.empty()) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias.data);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(type_of(args.bias.dtype)));
    }
    layout(left, args.b.values.dtype, b.k_contiguous ? k : n, b.k_contiguous ? n : k, b.leading);
    layout(right, args.a.values.dtype, a.k_contiguous ? k : m, a.k_contiguous ? m : k, a.leading);
    layout(result, args.c.dtype, n, m, std::max(args.c.strides[0], n));
  }
  ~Descriptors() {
    for (cublasLtMatrixLayout_t each : {left, right, result}) {
      if (each != nullptr) library().layout_destroy(each);
    }
    if (product != nullptr) library().desc_destroy(product);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t left = nullptr;
  cublasLtMatrixLayout_t right = nullptr;
  cublasLtMatrixLayout_t result = nullptr;

 private:
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    lt_check(library().desc_set(product, attribute, &value, sizeof(value)), "cublasLtMatmulDescSetAttribute");
  }
  static void layout(cublasLtMatrixLayout_t& into, DType dtype, std::int64_t rows, std::int64_t columns,
                     std::int64_t leading) {
    lt_check(library().layout_create(&into, type_of(dtype), static_cast<std::uint64_t>(rows),
                                     static_cast<std::uint64_t>(columns), leading),
             "cublasLtMatrixLayoutCreate");
  }
};

Key key_of(const GemmArgs& args, const LtOperand& a, const LtOperand& b, std::int64_t workspace) {
  const auto format = [](DType dtype) { return static_cast<std::int64_t>(dtype); };
  return {args.c.shape[0],
          args.c.shape[1],
          args.a.values.shape[1],
          format(args.c.dtype),
          format(args.a.values.dtype),
          format(args.b.values.dtype),
          a.k_contiguous,
          b.k_contiguous,
          a.leading,
          b.leading,
          args.c.strides[0],
          static_cast<std::int64_t>(scale_mode(args.a)) * 16 + static_cast<std::int64_t>(scale_mode(args.b)),
          args.accumulate,
          args.bias.empty() ? -1 : format(args.bias.dtype),
          workspace,
          args.c.device.index};
}

cublasLtMatmulAlgo_t choose_algorithm(cublasLtHandle_t handle, const Descriptors& d, std::int64_t workspace) {
  const Library& lib = library();
  cublasLtMatmulPreference_t preference = nullptr;
  lt_check(lib.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
  const auto bytes = static_cast<std::uint64_t>(workspace);
  lib.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes));
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  const cublasStatus_t status =
      lib.heuristic(handle, d.product, d.left, d.right, d.result, d.result, preference, 1, &best, &found);
  lib.preference_destroy(preference);
  lt_check(status, "cublasLtMatmulAlgoGetHeuristic");
  check(found > 0, "cuBLASLt knows no algorithm for this product");
  return best.algo;
}

}  // namespace

std::string refuses(const GemmArgs& args) {
  if (args.stream.device().kind != DeviceKind::cuda) return "runs on a CUDA stream only";
  for (const Device device : {args.c.device, args.a.values.device, args.b.values.device}) {
    if (device != args.stream.device()) return "a tensor is on " + to_string(device);
  }
  if (args.packed_b != nullptr) return "b is packed for another variant";
  if (!library().fault.empty()) return library().fault;
  const DType a = args.a.values.dtype;
  const DType b = args.b.values.dtype;
  if (args.c.dtype != DType::f32 && args.c.dtype != DType::bf16) return "c must be f32 or bf16";
  if (!args.bias.empty() && args.bias.dtype != args.c.dtype) return "bias and c differ in format";
  if (args.a.values.shape[1] == 0) return "k is 0";
  if (byte_format(a) && byte_format(b)) return refuses_bytes(args);
  if (a != b || (a != DType::f32 && a != DType::bf16)) return "a and b must be f32, bf16 or 8-bit alike";
  if (a == DType::f32 && args.c.dtype != DType::f32) return "f32 operands make an f32 result";
  if (operand_of(args.a.values).leading == 0 || operand_of(args.b.values).leading == 0) {
    return "one dim of each operand must be contiguous";
  }
  return {};
}

void run(const GemmArgs& args) {
  const LtOperand a = operand_of(args.a.values);
  const LtOperand b = operand_of(args.b.values);
  const Arena::Scope scope(args.scratch);
  const std::int64_t left = (args.scratch.capacity_bytes() - args.scratch.used_bytes()) / 64 * 64;
  const std::int64_t workspace = std::min(left, kWorkspaceBytes);
  void* scratch = workspace > 0 ? args.scratch.take(DType::u8, {workspace}).data : nullptr;

  const Descriptors d(args, a, b);
  const Key key = key_of(args, a, b, workspace);
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  {
    const std::scoped_lock lock(session().mutex);
    cuda_check(cudaSetDevice(args.c.device.index), "cudaSetDevice");
    cublasLtHandle_t& own = session().handles[args.c.device.index];
    if (own == nullptr) lt_check(library().create(&own), "cublasLtCreate");
    handle = own;
    auto known = session().algorithms.find(key);
    if (known == session().algorithms.end()) {
      known = session().algorithms.emplace(key, choose_algorithm(handle, d, workspace)).first;
    }
    algorithm = known->second;
  }
  const float alpha = 1;
  const float beta = args.accumulate ? 1 : 0;
  lt_check(library().matmul(handle, d.product, &alpha, args.b.values.data, d.left, args.a.values.data, d.right, &beta,
                            args.c.data, d.result, args.c.data, d.result, &algorithm, scratch,
                            static_cast<std::size_t>(workspace), cuda_stream(args.stream)),
           "cublasLtMatmul");
}

}  // namespace shoestring::gemm_detail::cublaslt
