#include "kernels/grouped_gemm_plan.h"

#include <algorithm>
#include <bit>

#include "kernels/gemm_cublaslt_plan.h"
#include "kernels/gemm_problem.h"

namespace shoestring::gemm_detail::cublaslt {
namespace {

constexpr std::int64_t kBytes = 16;          // pointers, and what is contiguous, begin and end at multiples of it
constexpr std::size_t kGroupsFrom = 130400;  // cuBLASLt 13.4: the first on sm_90
// Mended: on sm_90 products that use one workspace after each other may hang, and scales of 128 are refused.
constexpr std::size_t kSharesFrom = 130601;
// Tiles of the result may stay unwritten on sm_100 beside NCCL, from and until:
constexpr std::size_t kUnwrittenFrom = 130700;
constexpr std::size_t kWrittenFrom = 130801;

/// The product of all rows with the first expert, as gemm would have it: what holds for it holds for each group.
struct Whole {
  TensorView c;
  ConstScaledView a, b;
  std::int64_t groups, experts;
  bool sums_rows;
};

Whole whole_of(const GroupedGemmArgs& args) {
  const auto groups = static_cast<std::int64_t>(args.offsets.size()) - 1;
  const std::int64_t matrix_rows = args.b_transposed ? args.a.values.shape[1] : args.c.shape[1];
  return {args.c, args.a, problem_of(args, 0).b, groups, args.b.values.shape[0] / matrix_rows, false};
}

Whole whole_of(const GroupedWeightGemmArgs& args) {
  const auto groups = static_cast<std::int64_t>(args.offsets.size()) - 1;
  const bool apart = args.c.shape.rank() == 3;
  TensorView first = args.c;
  if (apart) {
    first.shape = {args.c.shape[1], args.c.shape[2]};
    first.strides = {args.c.strides[1], args.c.strides[2]};
  }
  return {first.slice(0, 0, args.a.values.shape[1]),
          args.a.transposed(),
          args.b.transposed(),
          groups,
          apart ? groups / args.c.shape[0] : groups,
          true};
}

/// An operand [r, k] of which one dim, or none, is the groups' rows.
GroupedMatrix matrix_of(const ConstTensorView& view, bool rows_are_groups, bool k_is_groups) {
  const LtOperand operand = operand_of(view);
  const int r = rows_are_groups ? kRowsOfGroup : static_cast<int>(view.shape[0]);
  const int k = k_is_groups ? kRowsOfGroup : static_cast<int>(view.shape[1]);
  GroupedMatrix matrix;
  matrix.values.data = view.data;
  if (rows_are_groups) matrix.values.of_row = view.strides[0] * size_bytes(view.dtype);
  if (k_is_groups) matrix.values.of_row = view.strides[1] * size_bytes(view.dtype);
  matrix.rows = operand.k_contiguous ? k : r;
  matrix.columns = operand.k_contiguous ? r : k;
  matrix.leading = static_cast<int>(operand.leading);
  return matrix;
}

GroupedPlan plan_of(const Whole& whole) {
  GroupedPlan plan;
  GroupedSetup& s = plan.setup;
  const std::int64_t k = whole.a.values.shape[1];
  s.groups = static_cast<int>(whole.groups);
  s.experts = static_cast<int>(whole.experts);
  s.rows = whole.sums_rows ? k : whole.a.values.shape[0];
  s.matrix[kLeft] = matrix_of(whole.b.values, false, whole.sums_rows);
  s.matrix[kRight] = matrix_of(whole.a.values, !whole.sums_rows, whole.sums_rows);
  GroupedMatrix& result = s.matrix[kResult] = matrix_of(whole.c, !whole.sums_rows, false);
  result.leading = static_cast<int>(leading_of(whole.c));
  plan.types[kLeft] = whole.b.values.dtype;
  plan.types[kRight] = whole.a.values.dtype;
  plan.types[kResult] = whole.c.dtype;
  plan.turn_left = operand_of(whole.b.values).k_contiguous;
  plan.turn_right = !operand_of(whole.a.values).k_contiguous;
  plan.granularity[kLeft] = whole.b.granularity;
  plan.granularity[kRight] = whole.a.granularity;
  const std::int64_t average = std::max<std::int64_t>(1, s.rows / s.groups);
  plan.average[0] = whole.c.shape[1];
  plan.average[1] = whole.sums_rows ? whole.c.shape[0] : average;
  plan.average[2] = whole.sums_rows ? average : k;
  s.matrix[kLeft].scales.data = whole.b.scales.data;
  s.matrix[kRight].scales.data = whole.a.scales.data;
  return plan;
}

std::string refuses_sides(const GroupedPlan& plan, std::span<const std::int64_t> offsets) {
  const bool bytes = byte_format(plan.types[kRight]);
  std::int64_t multiple = bytes ? kGroupRows : 1;
  for (const std::size_t side : {kLeft, kRight, kResult}) {
    const GroupedMatrix& matrix = plan.setup.matrix[side];
    const std::string name(1, "bac"[side]);
    const std::int64_t size = size_bytes(plan.types[side]);
    if (alignment_of(matrix.values.data) < kBytes) return name + " is not aligned to 16 bytes";
    if (matrix.leading * size % kBytes != 0) return "rows of " + name + " are not a multiple of 16 bytes apart";
    if (matrix.rows == kRowsOfGroup) {
      multiple = std::max(multiple, kBytes / size);
    } else if (matrix.rows * size % kBytes != 0) {
      return "what is contiguous in " + name + " is not a multiple of 16 bytes long";
    }
  }
  const bool cut_well =
      std::all_of(offsets.begin(), offsets.end(), [&](std::int64_t row) { return row % multiple == 0; });
  return cut_well ? "" : "groups begin at other rows than multiples of " + std::to_string(multiple);
}

template <class Args>
std::string refuses_both(const Args& args, Device device) {
  const Whole whole = whole_of(args);
  if (args.a.values.shape[0] == 0) return "there are no rows";
  if (args.a.values.shape[0] > INT32_MAX) return "more than 2^31 - 1 rows";
  if (whole.a.values.dtype == DType::f32) return "cuBLASLt groups products of bf16 and of 8-bit operands, not f32";
  const GemmArgs all{.c = whole.c, .a = whole.a, .b = whole.b, .scratch = args.scratch, .stream = args.stream};
  if (std::string reason = refuses_arguments(all, device); !reason.empty()) return reason;
  if (!args.device_offsets.empty() && args.device_offsets.device != device) {
    return to_string(args.device_offsets.device) + " holds the offsets";
  }
  return refuses_sides(plan_of(whole), args.offsets);
}

template <class Args>
void take_offsets(const Args& args, GroupedSetup& setup) {
  setup.accumulate = args.accumulate;
  setup.offsets = args.device_offsets.template as<std::int64_t>();
  if (args.device_offsets.empty()) setup.host_offsets = args.offsets.data();
}

}  // namespace

GroupedPlan plan_of(const GroupedGemmArgs& args) {
  const Whole whole = whole_of(args);
  GroupedPlan plan = plan_of(whole);
  GroupedSetup& s = plan.setup;
  take_offsets(args, s);
  const std::int64_t matrix_rows = args.b.values.shape[0] / whole.experts;
  s.matrix[kLeft].values.of_expert = matrix_rows * args.b.values.strides[0] * size_bytes(args.b.values.dtype);
  if (args.b.granularity == kBlock128) {
    s.matrix[kLeft].scales.of_expert = divide_up(matrix_rows, 128) * args.b.scales.strides[0] * size_bytes(DType::f32);
  }
  if (args.a.granularity != kRowTile128) return plan;
  s.scale_rows = {args.a.scales.as<float>(), nullptr, args.a.scales.strides[1],
                  static_cast<int>(args.a.scales.shape[1])};
  s.matrix[kRight].scales.of_row = s.scale_rows.tiles * size_bytes(DType::f32);
  return plan;
}

GroupedPlan plan_of(const GroupedWeightGemmArgs& args) {
  const Whole whole = whole_of(args);
  GroupedPlan plan = plan_of(whole);
  GroupedSetup& s = plan.setup;
  take_offsets(args, s);
  const std::int64_t m = whole.c.shape[0];
  const std::int64_t size = size_bytes(args.c.dtype);
  s.matrix[kResult].values.of_expert = m * whole.c.strides[0] * size;
  if (args.c.shape.rank() == 3) s.matrix[kResult].values.of_source = args.c.strides[0] * size;
  for (const auto& [side, operand] : {std::pair{kLeft, &args.b}, std::pair{kRight, &args.a}}) {
    if (operand->granularity == kColumnTile128) {
      s.matrix[side].scales.of_tile = operand->scales.strides[0] * size_bytes(DType::f32);
    }
  }
  return plan;
}

std::string refuses_arguments(const GroupedGemmArgs& args, Device device) {
  if (args.packed_b != nullptr) return "b is packed for another variant";
  if (args.b.granularity == kRowTile128) return "scales of 1x128 of stacked weights: 128x128 is what one call takes";
  if (args.a.granularity == kBlock128) return "scales of 128x128 would have to restart at every group";
  return refuses_both(args, device);
}

std::string refuses_arguments(const GroupedWeightGemmArgs& args, Device device) { return refuses_both(args, device); }

std::string refuses_library(std::size_t version, int capability, bool has_grouped_layouts) {
  const std::string is =
      std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100);
  if (version < kGroupsFrom || !has_grouped_layouts) return "grouped products need cuBLASLt 13.4, this is " + is;
  const bool hopper = capability == 90, blackwell = capability / 10 == 10;
  if (!hopper && !blackwell && capability != 110) {
    return "grouped products run on sm_90, sm_100 and sm_110, this is sm_" + std::to_string(capability);
  }
  if (hopper && version < kSharesFrom) {
    return "grouped products that use one workspace after each other may hang on sm_90 in cuBLASLt 13.4.0 to 13.6.0, "
           "this is " +
           is;
  }
  if (!hopper && version >= kUnwrittenFrom && version < kWrittenFrom) {
    return "grouped products may be wrong on sm_100 in cuBLASLt 13.7.0 to 13.8.0, this is " + is;
  }
  return {};
}

std::int64_t grouped_scratch_bytes(std::int64_t groups, std::int64_t rows, std::int64_t k) {
  const auto array = [&](std::int64_t size) { return Arena::footprint((groups + 1) * size); };
  return 6 * array(sizeof(void*)) + 9 * array(sizeof(int)) + Arena::footprint(2 * sizeof(float)) +
         Arena::footprint(rows * divide_up(k, 128) * size_bytes(DType::f32));
}

void take_arrays(GroupedPlan& plan, Arena& scratch) {
  GroupedSetup& s = plan.setup;
  const auto take = [&]<class T>(T*& array, DType dtype, std::int64_t count) {
    array = static_cast<T*>(scratch.take(dtype, {count}).data);
  };
  if (s.host_offsets != nullptr) take(s.offsets, DType::i64, s.groups + 1);
  for (const std::size_t side : {kLeft, kRight, kResult}) {
    take(s.arrays.values[side], DType::i64, s.groups);
    if (side != kResult && s.matrix[side].scales.data != nullptr) take(s.arrays.scales[side], DType::i64, s.groups);
    for (int** array : {&s.arrays.rows[side], &s.arrays.columns[side], &s.arrays.leading[side]}) {
      take(*array, DType::i32, s.groups);
    }
  }
  take(s.arrays.factors, DType::f32, 2);
  if (s.scale_rows.tiles > 1) {
    take(s.scale_rows.to, DType::f32, s.rows * s.scale_rows.tiles);
    s.matrix[kRight].scales.data = s.scale_rows.to;
  }
}

std::vector<std::int64_t> key_of(const GroupedPlan& plan, std::int64_t workspace_bytes, int device) {
  const auto rounded = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(plan.setup.rows)));
  std::vector<std::int64_t> key{-1,  // no dense product's
                                plan.setup.groups,
                                rounded,
                                workspace_bytes,
                                device,
                                plan.turn_left,
                                plan.turn_right,
                                plan.setup.accumulate};
  for (const std::size_t side : {kLeft, kRight, kResult}) {
    const GroupedMatrix& matrix = plan.setup.matrix[side];
    key.insert(key.end(), {matrix.rows, matrix.columns, matrix.leading, static_cast<std::int64_t>(plan.types[side])});
    if (side == kResult) continue;
    key.insert(key.end(), {plan.granularity[side].rows, plan.granularity[side].columns});
  }
  return key;
}

}  // namespace shoestring::gemm_detail::cublaslt
