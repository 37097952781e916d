// A grouped product as one call of cuBLASLt takes it: what is decided about it before the library sees it, for
// grouped_gemm_cublaslt.cpp, and what a kernel writes down for it on the device. Needs neither the library nor a
// device, so that tests reach it anywhere; nothing here reads what a tensor's pointer points to.
//
// The library reads from arrays on the device where each group's matrices begin and how large they are. Groups differ
// in nothing but their rows, which a kernel takes from the groups' offsets (grouped_gemm_arrays.cu): the host need not
// know them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/grouped_gemm.h"

namespace shoestring::gemm_detail::cublaslt {

/// Where the matrix of a group begins: `data`, and bytes behind it for each row before the group, each tile of 128 rows
/// (which restart at every group), its expert's number, and its source's.
struct Places {
  const void* data = nullptr;
  std::int64_t of_row = 0, of_tile = 0, of_expert = 0, of_source = 0;
};

inline constexpr int kRowsOfGroup = -1;  ///< an extent that is the group's rows

/// A matrix of every group, in the library's terms: columns are contiguous, `leading` elements apart.
struct GroupedMatrix {
  Places values, scales;  ///< scales.data nullptr: none
  int rows = 0, columns = 0, leading = 0;
};

enum Side : std::size_t { kLeft, kRight, kResult };  ///< b, a and c: the library thinks in columns

/// On the device, for `groups` groups each.
struct GroupedArrays {
  const void** values[3] = {};
  const void** scales[2] = {};  ///< nullptr where there are none
  int *rows[3] = {}, *columns[3] = {}, *leading[3] = {};
  float* factors = nullptr;  ///< 1, and what c is multiplied by before the product is added
};

/// Scales of 1x128 that stand in one matrix [k / 128, rows] of all groups' rows; the library wants each group's apart.
struct ScaleRows {
  const float* from = nullptr;  ///< nullptr: they need not be moved
  float* to = nullptr;          ///< [groups] matrices [tiles, the group's rows]
  std::int64_t stride = 0;      ///< from one tile of 128 to the next in `from`
  int tiles = 0;
};

/// What the kernels need.
struct GroupedSetup {
  const std::int64_t* offsets = nullptr;       ///< [groups + 1], on the device
  const std::int64_t* host_offsets = nullptr;  ///< nullptr where those are there already
  int groups = 0, experts = 0;
  std::int64_t rows = 0;  ///< of all groups
  GroupedMatrix matrix[3];
  ScaleRows scale_rows;
  bool accumulate = false;
  GroupedArrays arrays;
};

/// And the library beside.
struct GroupedPlan {
  GroupedSetup setup;
  DType types[3] = {};
  bool turn_left = false, turn_right = false;
  Granularity granularity[2] = {};  ///< of kLeft's and kRight's scales as products read them, k along columns
  std::int64_t average[3] = {};     ///< rows and columns of the result, and terms of a sum, over the groups
};
GroupedPlan plan_of(const GroupedGemmArgs& args);
GroupedPlan plan_of(const GroupedWeightGemmArgs& args);

/// Why a product with everything on `device` is not for one call; empty when nothing in the arguments speaks against
/// it.
std::string refuses_arguments(const GroupedGemmArgs& args, Device device);
std::string refuses_arguments(const GroupedWeightGemmArgs& args, Device device);

/// Why the library of `version` (130401 is 13.4.1) groups no products on a device of `capability` (90 for sm_90); empty
/// where it does. Faults are those of NVIDIA's notes: cuBLAS in the notes of CUDA 13.2 to 13.4 Update 1, its patches
/// 13.4.1 to 13.6.2, and the known issues of TransformerEngine 2.20.
std::string refuses_library(std::size_t version, int capability, bool has_grouped_layouts);

/// Scratch on the device behind which the library has its own: the arrays, offsets, and scales that are moved.
std::int64_t grouped_scratch_bytes(std::int64_t groups, std::int64_t rows, std::int64_t k);
/// Takes the arrays and what else `plan` needs from `scratch`, which the caller gives back.
void take_arrays(GroupedPlan& plan, Arena& scratch);

/// All that decides the library's algorithm.
std::vector<std::int64_t> key_of(const GroupedPlan& plan, std::int64_t workspace_bytes, int device);

}  // namespace shoestring::gemm_detail::cublaslt
