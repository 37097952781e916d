// Dense products through cuBLASLt. The library (some hundred megabytes) is loaded at the first product that may need
// it, so that a program built with CUDA starts, and starts fast, where there is none.
//
// cuBLASLt thinks in columns: a row-major c [m, n] is its column-major [n, m], so its left operand is our b and its
// right one our a. An operand [rows, k] with k contiguous is its [k, rows]; with rows contiguous its [rows, k].
#include "kernels/gemm_cublaslt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>

#include "kernels/base/check.h"
#include "kernels/base/cuda_check.h"
#include "kernels/gemm_cublaslt_plan.h"

namespace shoestring::gemm_detail::cublaslt {
namespace {

// What the library that is loaded has and the headers may be too old to name, by its documented value: scale modes from
// 12.8 on, those of 128 from 12.9 on. refuses_block_scales asks the library itself.
#if CUBLAS_VERSION < 120800
using ScaleMode = std::int32_t;
constexpr auto kScaleModeA = static_cast<cublasLtMatmulDescAttributes_t>(31);
constexpr auto kScaleModeB = static_cast<cublasLtMatmulDescAttributes_t>(32);
constexpr ScaleMode kOneScale = 0;
#else
using ScaleMode = cublasLtMatmulMatrixScale_t;
constexpr auto kScaleModeA = CUBLASLT_MATMUL_DESC_A_SCALE_MODE;
constexpr auto kScaleModeB = CUBLASLT_MATMUL_DESC_B_SCALE_MODE;
constexpr ScaleMode kOneScale = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
#endif
#if CUBLAS_VERSION < 120900
constexpr auto kRowTileScales = static_cast<ScaleMode>(4);
constexpr auto kBlockScales = static_cast<ScaleMode>(5);
#else
constexpr ScaleMode kRowTileScales = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
constexpr ScaleMode kBlockScales = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
#endif
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

/// One handle per device, and the algorithms chosen so far. Guarded by `mutex`.
struct Session {
  std::mutex mutex;
  std::map<int, cublasLtHandle_t> handles;
  std::map<Key, std::optional<cublasLtMatmulAlgo_t>> algorithms;
};

Session& session() {
  static Session instance;
  return instance;
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

ScaleMode scale_mode(const ConstScaledView& view) {
  if (view.granularity == kRowTile128) return kRowTileScales;
  return view.granularity == kBlock128 ? kBlockScales : kOneScale;
}

/// Scales of 128 need a library and a device that know them.
std::string refuses_block_scales(int device) {
  if (library().version() < kBlockScalesFrom) return "block scales need cuBLASLt 12.9";
  int major = 0;
  int minor = 0;
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  return major == 9 && minor == 0 ? "" : "block scales of 128 run on sm_90 only";
}

/// Frees what the library made.
struct Destroy {
  void operator()(cublasLtMatmulDesc_t made) const { library().desc_destroy(made); }
  void operator()(cublasLtMatrixLayout_t made) const { library().layout_destroy(made); }
  void operator()(cublasLtMatmulPreference_t made) const { library().preference_destroy(made); }
};
template <class Handle>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy>;
using Layout = Owned<cublasLtMatrixLayout_t>;

Layout layout(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t leading) {
  cublasLtMatrixLayout_t made = nullptr;
  lt_check(library().layout_create(&made, type_of(dtype), static_cast<std::uint64_t>(rows),
                                   static_cast<std::uint64_t>(columns), leading),
           "cublasLtMatrixLayoutCreate");
  return Layout(made);
}

/// Descriptors of one product; freed with it.
class Descriptors {
 public:
  explicit Descriptors(const GemmArgs& args) {
    const LtOperand a = operand_of(args.a.values);
    const LtOperand b = operand_of(args.b.values);
    const std::int64_t m = args.c.shape[0];
    const std::int64_t n = args.c.shape[1];
    const std::int64_t k = args.a.values.shape[1];
    cublasLtMatmulDesc_t made = nullptr;
    lt_check(library().desc_create(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    product.reset(made);
    const cublasOperation_t left_turn = b.k_contiguous ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t right_turn = a.k_contiguous ? CUBLAS_OP_N : CUBLAS_OP_T;
    set(CUBLASLT_MATMUL_DESC_TRANSA, left_turn);
    set(CUBLASLT_MATMUL_DESC_TRANSB, right_turn);
    if (byte_format(args.a.values.dtype)) {
      set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, args.b.scales.data);
      set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, args.a.scales.data);
      if (block_scaled(args)) {  // one scale for all is the mode anyway, and older libraries know no other
        set(kScaleModeA, static_cast<std::int32_t>(scale_mode(args.b)));
        set(kScaleModeB, static_cast<std::int32_t>(scale_mode(args.a)));
      }
    }
    if (!args.bias.empty()) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias.data);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(type_of(args.bias.dtype)));
    }
    left = layout(args.b.values.dtype, b.k_contiguous ? k : n, b.k_contiguous ? n : k, b.leading);
    right = layout(args.a.values.dtype, a.k_contiguous ? k : m, a.k_contiguous ? m : k, a.leading);
    result = layout(args.c.dtype, n, m, leading_of(args.c));
  }

  Owned<cublasLtMatmulDesc_t> product;
  Layout left;
  Layout right;
  Layout result;

 private:
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    lt_check(library().desc_set(product.get(), attribute, &value, sizeof(value)), "cublasLtMatmulDescSetAttribute");
  }
};

/// Nothing where the library has none.
std::optional<cublasLtMatmulAlgo_t> choose_algorithm(cublasLtHandle_t handle, const GemmArgs& args,
                                                     const Descriptors& d, std::int64_t workspace_bytes) {
  const Library& lib = library();
  cublasLtMatmulPreference_t made = nullptr;
  lt_check(lib.preference_create(&made), "cublasLtMatmulPreferenceCreate");
  const Owned<cublasLtMatmulPreference_t> preference(made);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    lt_check(lib.preference_set(made, attribute, &value, sizeof(value)), "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_bytes));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(args.b.values.data));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(args.a.values.data));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(args.c.data));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(args.c.data));
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  const cublasStatus_t status = lib.heuristic(handle, d.product.get(), d.left.get(), d.right.get(), d.result.get(),
                                              d.result.get(), made, 1, &best, &found);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return {};
  lt_check(status, "cublasLtMatmulAlgoGetHeuristic");
  return found > 0 ? std::optional(best.algo) : std::nullopt;
}

/// What `scratch` has left for the library. The caller gives it back.
Workspace take_workspace(Arena& scratch) {
  const std::int64_t left = scratch.left_bytes() / 64 * 64;
  const std::int64_t taken = std::min(left, kScratchBytes);
  return workspace_of(scratch.take(DType::u8, {taken}).data, taken);
}

/// The library's handle on the device, and its algorithm for the product; asked once for each kind of product.
struct Choice {
  cublasLtHandle_t handle = nullptr;
  std::optional<cublasLtMatmulAlgo_t> algorithm{};
};
Choice choice_for(const GemmArgs& args, const Descriptors& d, std::int64_t workspace_bytes) {
  const std::scoped_lock lock(session().mutex);
  cuda_check(cudaSetDevice(args.c.device.index), "cudaSetDevice");
  cublasLtHandle_t& handle = session().handles[args.c.device.index];
  if (handle == nullptr) lt_check(library().create(&handle), "cublasLtCreate");
  const Key key = key_of(args, workspace_bytes);
  auto known = session().algorithms.find(key);
  if (known == session().algorithms.end()) {
    known = session().algorithms.emplace(key, choose_algorithm(handle, args, d, workspace_bytes)).first;
  }
  return {handle, known->second};
}

/// k = 0: c becomes zeros or the bias, or is kept.
void run_empty_sum(const GemmArgs& args) {
  if (args.accumulate) return;
  if (!args.bias.empty()) return spread_bias(args.c, args.bias, args.stream);
  const std::int64_t size = size_bytes(args.c.dtype);
  cuda_check(cudaMemset2DAsync(args.c.data, static_cast<std::size_t>(leading_of(args.c) * size), 0,
                               static_cast<std::size_t>(args.c.shape[1] * size),
                               static_cast<std::size_t>(args.c.shape[0]), cuda_stream(args.stream)),
             "cudaMemset2DAsync");
}

}  // namespace

std::string refuses(const GemmArgs& args) {
  const Device device = args.stream.device();
  if (device.kind != DeviceKind::cuda) return "runs on a CUDA stream only";
  if (std::string reason = refuses_arguments(args, device); !reason.empty()) return reason;
  if (args.a.values.shape[1] == 0) return {};  // needs no library
  if (!library().fault.empty()) return library().fault;
  if (block_scaled(args)) {
    if (std::string reason = refuses_block_scales(device.index); !reason.empty()) return reason;
  }
  // Asked here, so that who quantises for the product hears of it before anything is enqueued.
  const Arena::Scope scope(args.scratch);
  const Workspace workspace = take_workspace(args.scratch);
  return choice_for(args, Descriptors(args), workspace.bytes).algorithm ? "" : "cuBLASLt has no algorithm for it";
}

void run(const GemmArgs& args) {
  if (args.a.values.shape[1] == 0) return run_empty_sum(args);
  const Arena::Scope scope(args.scratch);
  const Workspace workspace = take_workspace(args.scratch);
  const Descriptors d(args);
  const Choice choice = choice_for(args, d, workspace.bytes);
  check(choice.algorithm.has_value(), "cuBLASLt has no algorithm for this product");
  const float alpha = 1;
  const float beta = args.accumulate ? 1 : 0;
  lt_check(library().matmul(choice.handle, d.product.get(), &alpha, args.b.values.data, d.left.get(),
                            args.a.values.data, d.right.get(), &beta, args.c.data, d.result.get(), args.c.data,
                            d.result.get(), &*choice.algorithm, workspace.data,
                            static_cast<std::size_t>(workspace.bytes), cuda_stream(args.stream)),
           "cublasLtMatmul");
}

}  // namespace shoestring::gemm_detail::cublaslt
