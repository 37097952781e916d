// cuBLASLt as its rows use it: the library, loaded at the first product that may need it, and what its descriptors are
// made of. Not for other code; needs the toolkit's headers.
//
// cuBLASLt thinks in columns: a row-major c [m, n] is its column-major [n, m], so its left operand is our b and its
// right one our a. An operand [rows, k] with k contiguous is its [k, rows]; with rows contiguous its [rows, k].
#pragma once

#include <cublasLt.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/gemm_cublaslt_plan.h"

namespace shoestring::gemm_detail::cublaslt {

// What the library that is loaded has and the headers may be too old to name, by its documented value: scale modes from
// 12.8 on, those of 128 from 12.9 on, one for each group of a grouped product from 13.2 on. The rows ask the library
// itself.
#if CUBLAS_VERSION < 120800
using ScaleMode = std::int32_t;
inline constexpr auto kScaleModeA = static_cast<cublasLtMatmulDescAttributes_t>(31);
inline constexpr auto kScaleModeB = static_cast<cublasLtMatmulDescAttributes_t>(32);
#else
using ScaleMode = cublasLtMatmulMatrixScale_t;
inline constexpr auto kScaleModeA = CUBLASLT_MATMUL_DESC_A_SCALE_MODE;
inline constexpr auto kScaleModeB = CUBLASLT_MATMUL_DESC_B_SCALE_MODE;
#endif
#if CUBLAS_VERSION < 120900
inline constexpr auto kRowTileScales = static_cast<ScaleMode>(4);
inline constexpr auto kBlockScales = static_cast<ScaleMode>(5);
#else
inline constexpr ScaleMode kRowTileScales = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
inline constexpr ScaleMode kBlockScales = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
#endif
#if CUBLAS_VERSION < 130200
inline constexpr auto kOneScaleEach = static_cast<ScaleMode>(6);
inline constexpr auto kAverageReduction = static_cast<cublasLtMatmulPreferenceAttributes_t>(13);
inline constexpr auto kAverageRows = static_cast<cublasLtMatmulPreferenceAttributes_t>(14);
inline constexpr auto kAverageColumns = static_cast<cublasLtMatmulPreferenceAttributes_t>(15);
#else
inline constexpr ScaleMode kOneScaleEach = CUBLASLT_MATMUL_MATRIX_SCALE_PER_BATCH_SCALAR_32F;
inline constexpr auto kAverageReduction = CUBLASLT_MATMUL_PREF_GROUPED_AVERAGE_REDUCTION_DIM;
inline constexpr auto kAverageRows = CUBLASLT_MATMUL_PREF_GROUPED_DESC_D_AVERAGE_ROWS;
inline constexpr auto kAverageColumns = CUBLASLT_MATMUL_PREF_GROUPED_DESC_D_AVERAGE_COLS;
#endif

/// The functions of the library that are used here.
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
  /// Absent before 13.2: (layout, type, groups, and device arrays of each group's rows, columns and leading dim).
  cublasStatus_t (*grouped_layout_create)(cublasLtMatrixLayout_t*, cudaDataType, int, const void*, const void*,
                                          const void*) = nullptr;
  std::string fault;  ///< why it could not be loaded; empty when it was
};
const Library& library();

/// Throws Error(bug) naming the call.
void lt_check(cublasStatus_t status, const char* call);
cudaDataType type_of(DType dtype);
/// Of a CUDA device: 90 for sm_90.
int compute_capability(int device);

/// Frees what the library made.
struct Destroy {
  void operator()(cublasLtMatmulDesc_t made) const { library().desc_destroy(made); }
  void operator()(cublasLtMatrixLayout_t made) const { library().layout_destroy(made); }
  void operator()(cublasLtMatmulPreference_t made) const { library().preference_destroy(made); }
};
template <class Handle>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy>;
using Layout = Owned<cublasLtMatrixLayout_t>;

/// What is multiplied, but for the numbers and where they stand. Freed with it.
struct Descriptors {
  /// Sums of FP32; the operands as they are, or turned.
  Descriptors(bool turn_left, bool turn_right);
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    lt_check(library().desc_set(product.get(), attribute, &value, sizeof(value)), "cublasLtMatmulDescSetAttribute");
  }

  Owned<cublasLtMatmulDesc_t> product;
  Layout left, right, result;
};

/// What the choice of an algorithm may count on.
class Preference {
 public:
  explicit Preference(std::int64_t workspace_bytes);
  template <class Value>
  void set(cublasLtMatmulPreferenceAttributes_t attribute, const Value& value) {
    lt_check(library().preference_set(made_.get(), attribute, &value, sizeof(value)),
             "cublasLtMatmulPreferenceSetAttribute");
  }
  cublasLtMatmulPreference_t get() const { return made_.get(); }

 private:
  Owned<cublasLtMatmulPreference_t> made_;
};

/// The library's handle on a device, and its algorithm for a product; asked for once by `key`, which holds all that
/// decides it. `prefer` says more of the preferences, where they are asked for.
struct Choice {
  cublasLtHandle_t handle = nullptr;
  std::optional<cublasLtMatmulAlgo_t> algorithm{};  ///< nothing where the library has none
};
Choice choice_for(int device, const std::vector<std::int64_t>& key, const Descriptors& d, std::int64_t workspace_bytes,
                  const std::function<void(Preference&)>& prefer);

/// What `scratch` has left for the library. The caller gives it back.
Workspace take_workspace(Arena& scratch);

}  // namespace shoestring::gemm_detail::cublaslt
