#include "kernels/grouped_gemm.h"

#include <algorithm>
#include <array>
#include <new>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/cpu.h"
#include "kernels/gemm_cublaslt_plan.h"
#include "kernels/gemm_problem.h"
#include "kernels/grouped_gemm_plan.h"

#if SHOESTRING_CUDA
#include "kernels/grouped_gemm_cublaslt.h"
#endif

namespace shoestring {
namespace {

using gemm_detail::divide_up;
using gemm_detail::Machine;
using gemm_detail::Problem;

std::int64_t groups_of(std::span<const std::int64_t> offsets) { return static_cast<std::int64_t>(offsets.size()) - 1; }

/// Matrices stacked in b; 0 where they are not of c's width.
std::int64_t experts_of(const GroupedGemmArgs& args) {
  const std::int64_t rows = args.b_transposed ? args.a.values.shape[1] : args.c.shape[1];
  const std::int64_t stacked = args.b.values.shape[0];
  return rows > 0 && stacked % rows == 0 ? stacked / rows : 0;
}

/// c_e of each source apart: [sources, experts * m, n].
bool by_source(const GroupedWeightGemmArgs& args) { return args.c.shape.rank() == 3; }

std::int64_t experts_of(const GroupedWeightGemmArgs& args) {
  return by_source(args) ? groups_of(args.offsets) / args.c.shape[0] : groups_of(args.offsets);
}

std::int64_t at(std::span<const std::int64_t> offsets, std::int64_t expert) {
  return offsets[static_cast<std::size_t>(expert)];
}

/// Expert `e` of a stack of `experts` matrices; scale tiles restart at every matrix.
ConstScaledView stacked_matrix(const ConstScaledView& stacked, std::int64_t experts, std::int64_t e) {
  const std::int64_t rows = stacked.values.shape[0] / experts;
  ConstScaledView one = stacked;
  one.values = stacked.values.slice(0, e * rows, rows);
  if (stacked.scaled() && stacked.granularity.rows != 0) {
    const std::int64_t tiles = divide_up(rows, stacked.granularity.rows);
    one.scales = stacked.scales.slice(0, e * tiles, tiles);
  }
  return one;
}

/// Rows [begin, end) of `all`, whose scales start at row `scale_begin` and restart there.
ConstScaledView segment(const ConstScaledView& all, std::int64_t begin, std::int64_t end, std::int64_t scale_begin) {
  ConstScaledView one = all;
  one.values = all.values.slice(0, begin, end - begin);
  if (all.scaled() && all.granularity.rows != 0) {
    one.scales = all.scales.slice(0, scale_begin, divide_up(end - begin, all.granularity.rows));
  }
  return one;
}

void check_offsets(std::span<const std::int64_t> offsets, std::int64_t rows, std::string_view op) {
  check(offsets.size() >= 2 && offsets.front() == 0 && offsets.back() == rows && std::ranges::is_sorted(offsets),
        "{}: offsets must rise from 0 to the {} rows of a", op, rows);
}

void check_stack(const ConstScaledView& b, std::int64_t experts, std::string_view op) {
  const Shape& shape = b.values.shape;
  check(shape.rank() == 2 && shape[0] % experts == 0, "{}: b {} is not a stack of {} matrices", op, shape, experts);
  if (!b.scaled() || b.granularity.rows == 0) return;
  const std::int64_t tiles = experts * divide_up(shape[0] / experts, b.granularity.rows);
  check(b.scales.shape[0] == tiles, "{}: scales of b are {}, want {} rows: tiles restart at every expert", op,
        b.scales.shape, tiles);
}

}  // namespace

namespace gemm_detail {

Problem problem_of(const GroupedGemmArgs& args, std::int64_t group) {
  const std::int64_t begin = at(args.offsets, group);
  const std::int64_t end = at(args.offsets, group + 1);
  const std::int64_t experts = experts_of(args);
  check(experts > 0, "grouped_gemm: no matrix stands in b {}", args.b.values.shape);
  const std::int64_t expert = group % experts;
  const ConstScaledView b = stacked_matrix(args.b, experts, expert);
  return {args.c.slice(0, begin, end - begin),
          segment(args.a, begin, end, begin),
          args.b_transposed ? b.transposed() : b,
          args.accumulate,
          args.power_of_two_scales,
          args.packed_b,
          expert,
          {},
          nullptr};
}

}  // namespace gemm_detail

namespace {

using gemm_detail::problem_of;

/// Where the weight gradient of one group stands.
TensorView gradient_of(const GroupedWeightGemmArgs& args, std::int64_t group) {
  const std::int64_t m = args.a.values.shape[1];
  if (!by_source(args)) return args.c.slice(0, group * m, m);
  const std::int64_t experts = experts_of(args);
  TensorView source = args.c.slice(0, group / experts, 1);
  source.shape = {source.shape[1], source.shape[2]};
  source.strides = {source.strides[1], source.strides[2]};
  return source.slice(0, group % experts * m, m);
}

Problem problem_of(const GroupedWeightGemmArgs& args, std::int64_t e) {
  const std::int64_t begin = at(args.offsets, e);
  const std::int64_t end = at(args.offsets, e + 1);
  const auto part = [&](const ConstScaledView& all) {
    const std::int64_t tile = std::max<std::int64_t>(1, all.granularity.rows);
    return segment(all, begin, end, segment_tiles(args.offsets, e, tile)).transposed();
  };
  return {gradient_of(args, e),
          part(args.a),
          part(args.b),
          args.accumulate,
          args.power_of_two_scales,
          nullptr,
          0,
          {},
          nullptr};
}

template <class Args, const Machine& machine>
void run_on(const Args& args) {
  const Arena::Scope scope(args.scratch);
  const std::int64_t groups = groups_of(args.offsets);
  const std::int64_t experts = experts_of(args);
  auto* begin =
      args.scratch.take(DType::u8, {groups * static_cast<std::int64_t>(sizeof(Problem))}).template as<Problem>();
  Problem* next = begin;
  for (std::int64_t e = 0; e < experts; ++e) {  // one expert's weights are read together
    for (std::int64_t group = e; group < groups; group += experts) new (next++) Problem(problem_of(args, group));
  }
  gemm_detail::run(machine, {begin, static_cast<std::size_t>(groups)}, args.scratch, args.stream);
}

template <class Args>
void reference_run(const Args& args) {
  for (std::int64_t g = 0; g < groups_of(args.offsets); ++g) gemm_detail::reference(problem_of(args, g));
}

/// Scales of 1x128 as the product of one group alone reads them: of its rows, one column behind the other
/// (gemm_cublaslt.h), where those of all groups' rows were. From `scratch`; `copies` false: only where they will stand.
void take_scales_of_group(GemmArgs& product, bool copies) {
  ConstTensorView& scales = product.a.scales;
  const bool apart = product.a.granularity == kRowTile128 && scales.strides[0] == 1 && scales.shape[1] > 1 &&
                     scales.strides[1] != scales.shape[0];
  if (!apart) return;
  const TensorView own = product.scratch.take(scales.dtype, {scales.shape[1], scales.shape[0]});
  if (copies) copy(own, scales.transposed(), product.stream);
  scales = own.transposed();
}

/// On a device, where not all are taken in one: one product for each group, one after the other, by whichever row of
/// gemm takes it.
template <class Args>
GemmArgs product_of(const Args& args, std::int64_t group) {
  const Problem problem = problem_of(args, group);
  return {.c = problem.c,
          .a = problem.a,
          .b = problem.b,
          .accumulate = problem.accumulate,
          .power_of_two_scales = problem.power_of_two_scales,
          .scratch = args.scratch,
          .stream = args.stream};
}

template <class Args>
std::string one_by_one_refuses(const Args& args) {
  if (args.stream.device().kind == DeviceKind::cpu) return "a CPU runs all groups as one list";
  for (std::int64_t group = 0; group < groups_of(args.offsets); ++group) {
    GemmArgs product = product_of(args, group);
    if (product.c.elements() == 0) continue;
    const Arena::Scope scope(args.scratch);
    take_scales_of_group(product, false);
    std::string reasons;
    bool taken = false;
    for (const Variant<GemmArgs>& row : gemm_variants()) {
      const std::string reason = row.refuses(product);
      taken = taken || reason.empty();
      reasons += fmt::format("; {}: {}", row.name, reason);
    }
    if (!taken) return fmt::format("group {}{}", group, reasons);
  }
  return {};
}

template <class Args>
void run_one_by_one(const Args& args) {
  for (std::int64_t group = 0; group < groups_of(args.offsets); ++group) {
    GemmArgs product = product_of(args, group);
    if (product.c.elements() == 0) continue;
    const Arena::Scope scope(args.scratch);
    take_scales_of_group(product, true);
    gemm(product);
  }
}

/// All groups have one format and layout, so the first one speaks for them.
template <class Args, const gemm_detail::Machine& machine>
std::string refused_by(const Args& args) {
  return refuses(machine, problem_of(args, 0));
}

template <class Args>
std::string reference_refuses(const Args& args) {
  if (args.c.device.kind != DeviceKind::cpu) return "runs on a CPU";
  return args.b.values.empty() && args.b.values.elements() != 0 ? "b is only given packed" : "";
}

template <class Args>
constexpr std::array kVariants = std::to_array<Variant<Args>>({
#if defined(__x86_64__)
  {"amx", refused_by<Args, gemm_detail::amx::machine>, run_on<Args, gemm_detail::amx::machine>},
      {"avx512", refused_by<Args, gemm_detail::avx512::machine>, run_on<Args, gemm_detail::avx512::machine>},
      {"avx2_bf16", refused_by<Args, gemm_detail::avx2::bf16_machine>, run_on<Args, gemm_detail::avx2::bf16_machine>},
      {"avx2", refused_by<Args, gemm_detail::avx2::machine>, run_on<Args, gemm_detail::avx2::machine>},
#endif
      {"portable", refused_by<Args, gemm_detail::portable::machine>, run_on<Args, gemm_detail::portable::machine>},
#if SHOESTRING_CUDA
      {"cublaslt", gemm_detail::cublaslt::refuses_grouped, gemm_detail::cublaslt::run_grouped},
#endif
      {"one_by_one", one_by_one_refuses<Args>, run_one_by_one<Args>},
      {"reference", reference_refuses<Args>, reference_run<Args>},
});

}  // namespace

namespace {

/// A device runs one product after the other, or all in one with arrays that describe them.
std::int64_t claimed(const Stream& stream, std::int64_t on_cpu, std::int64_t groups, std::int64_t rows,
                     std::int64_t k) {
  namespace lt = gemm_detail::cublaslt;
  if (stream.device().kind == DeviceKind::cpu) return on_cpu;
  return lt::kScratchBytes + lt::grouped_scratch_bytes(groups, rows, k);
}

/// The offsets once more, if they are given so.
void check_device_offsets(ConstTensorView there, std::span<const std::int64_t> offsets, std::string_view op) {
  check(there.empty() || (there.dtype == DType::i64 && there.contiguous() &&
                          there.shape == Shape{static_cast<std::int64_t>(offsets.size())}),
        "{}: offsets on the device are {}, want {} i64", op, there, offsets.size());
}

}  // namespace

std::int64_t segment_tiles(std::span<const std::int64_t> offsets, std::int64_t expert, std::int64_t tile) {
  std::int64_t tiles = 0;
  for (std::int64_t e = 0; e < expert; ++e) tiles += divide_up(at(offsets, e + 1) - at(offsets, e), tile);
  return tiles;
}

void pack_experts(const ConstScaledView& stacked, std::int64_t experts, bool transposed, bool power_of_two_scales,
                  PackedMatrix& into, Stream& stream) {
  check_stack(stacked, experts, "pack_experts");
  std::vector<ConstScaledView> matrices;
  for (std::int64_t e = 0; e < experts; ++e) {
    const ConstScaledView one = stacked_matrix(stacked, experts, e);
    matrices.push_back(transposed ? one.transposed() : one);
  }
  gemm_detail::pack(gemm_detail::machine_for(stacked.values.dtype), matrices, power_of_two_scales, into, stream);
}

void grouped_gemm(const GroupedGemmArgs& args) {
  constexpr std::string_view kOp = "grouped_gemm";
  check(args.a.values.shape.rank() == 2 && args.c.shape.rank() == 2, "{}: a {} and c {} must be matrices", kOp,
        args.a.values.shape, args.c.shape);
  check_offsets(args.offsets, args.a.values.shape[0], kOp);
  check_device_offsets(args.device_offsets, args.offsets, kOp);
  check(args.c.shape[0] == args.a.values.shape[0], "{}: c {} and a {} differ in rows", kOp, args.c.shape,
        args.a.values.shape);
  const std::int64_t groups = groups_of(args.offsets);
  const std::int64_t experts = experts_of(args);
  check(experts > 0 && groups % experts == 0, "{}: {} groups with b {} and c {}", kOp, groups, args.b.values.shape,
        args.c.shape);
  check_stack(args.b, experts, kOp);
  for (std::int64_t g = 0; g < groups; ++g) gemm_detail::check_problem(problem_of(args, g), kOp);
  if (args.c.elements() == 0) return;
  if (args.stream.dry()) {
    const std::int64_t on_cpu =
        grouped_gemm_scratch_bytes(args.c.shape[0], args.c.shape[1], args.a.values.shape[1], groups,
                                   args.stream.worker_count(), args.packed_b != nullptr);
    return args.scratch.claim(claimed(args.stream, on_cpu, groups, args.c.shape[0], args.a.values.shape[1]));
  }
  choose(kOp, kVariants<GroupedGemmArgs>, args).run(args);
}

void grouped_weight_gemm(const GroupedWeightGemmArgs& args) {
  constexpr std::string_view kOp = "grouped_weight_gemm";
  check(args.a.values.shape.rank() == 2 && args.b.values.shape.rank() == 2 &&
            (args.c.shape.rank() == 2 || by_source(args)),
        "{}: a {}, b {} and c {} must be matrices", kOp, args.a.values.shape, args.b.values.shape, args.c.shape);
  check_offsets(args.offsets, args.a.values.shape[0], kOp);
  check_device_offsets(args.device_offsets, args.offsets, kOp);
  const std::int64_t groups = groups_of(args.offsets);
  const std::int64_t m = args.a.values.shape[1];
  const std::int64_t stacked = by_source(args) ? args.c.shape[0] * args.c.shape[1] : args.c.shape[0];
  check(stacked == groups * m && args.b.values.shape[0] == args.a.values.shape[0],
        "{}: c {} does not fit {} groups of a {} and b {}", kOp, args.c.shape, groups, args.a.values.shape,
        args.b.values.shape);
  for (const ConstScaledView* side : {&args.a, &args.b}) {
    if (!side->scaled() || side->granularity.rows == 0) continue;
    const std::int64_t tiles = segment_tiles(args.offsets, groups, side->granularity.rows);
    check(side->scales.shape[0] == tiles, "{}: scales are {}, want {} rows: tiles restart at every group", kOp,
          side->scales.shape, tiles);
  }
  for (std::int64_t g = 0; g < groups; ++g) gemm_detail::check_problem(problem_of(args, g), kOp);
  if (args.c.elements() == 0) return;
  if (args.stream.dry()) {
    const std::int64_t on_cpu = grouped_weight_gemm_scratch_bytes(args.a.values.shape[0], m, args.b.values.shape[1],
                                                                  groups, args.stream.worker_count());
    return args.scratch.claim(claimed(args.stream, on_cpu, groups, 0, 0));
  }
  choose(kOp, kVariants<GroupedWeightGemmArgs>, args).run(args);
}

std::span<const Variant<GroupedGemmArgs>> grouped_gemm_variants() { return kVariants<GroupedGemmArgs>; }
std::span<const Variant<GroupedWeightGemmArgs>> grouped_weight_gemm_variants() {
  return kVariants<GroupedWeightGemmArgs>;
}

std::int64_t grouped_gemm_scratch_bytes(std::int64_t rows, std::int64_t n, std::int64_t k, std::int64_t groups,
                                        int workers, bool prepacked_b) {
  const std::int64_t spread = Arena::footprint(gemm_detail::round_up(n, 32) * divide_up(k, 32) * 4);
  const std::int64_t here = gemm_detail::problem_bytes(groups) +
                            groups * (prepacked_b ? spread : gemm_detail::panel_bytes(n, k)) +
                            workers * gemm_detail::workspace_bytes(rows, k);
  return std::max(here, gemm_detail::cublaslt::grouped_scratch_bytes(groups, rows, k));  // on a device
}

std::int64_t grouped_weight_gemm_scratch_bytes(std::int64_t rows, std::int64_t m, std::int64_t n, std::int64_t groups,
                                               int workers) {
  const std::int64_t here = gemm_detail::problem_bytes(groups) + gemm_detail::panel_bytes(n, rows + 32 * groups) +
                            groups * gemm_detail::panel_bytes(1, 1) + workers * gemm_detail::workspace_bytes(m, rows);
  return std::max(here, gemm_detail::cublaslt::grouped_scratch_bytes(groups, 0, 0));  // on a device
}

}  // namespace shoestring
