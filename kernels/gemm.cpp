#include "kernels/gemm.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"
#include "kernels/gemm_cublaslt_plan.h"
#include "kernels/gemm_problem.h"

#if SHOESTRING_CUDA
#include "kernels/gemm_cublaslt.h"
#endif

namespace shoestring {
namespace gemm_detail {
namespace {

bool byte_format(DType dtype) { return dtype == DType::e4m3 || dtype == DType::e5m2; }

bool foldable(float scale) {
  const auto bits = std::bit_cast<std::uint32_t>(scale);
  const std::uint32_t from_least = (bits >> 23) - static_cast<std::uint32_t>(127 - kFoldExponent);  // wraps below
  return ((bits & 0x7FFFFFu) | (from_least > 2u * kFoldExponent ? 1u : 0u)) == 0;
}

/// Whether every scale may be moved into exponents. Runs before each product: no branches, the shorter stride inside.
bool all_foldable(const ConstTensorView& scales) {
  const bool along_rows = scales.strides[0] < scales.strides[1];
  const int inner = along_rows ? 0 : 1;
  const std::int64_t step = scales.strides[inner];
  for (std::int64_t o = 0; o < scales.shape[1 - inner]; ++o) {
    const std::int64_t at = o * scales.strides[1 - inner];
    unsigned misfits = 0;
    for (std::int64_t i = 0; i < scales.shape[inner]; ++i) {
      const float scale =
          scales.dtype == DType::e8m0 ? float{scales.as<E8M0>()[at + i * step]} : scales.as<float>()[at + i * step];
      misfits |= foldable(scale) ? 0u : 1u;
    }
    if (misfits != 0) return false;
  }
  return true;
}

double element(const ConstTensorView& view, std::int64_t at) {
  switch (view.dtype) {
    case DType::f64: return view.as<double>()[at];
    case DType::f32: return view.as<float>()[at];
    case DType::bf16: return float{view.as<BFloat16>()[at]};
    case DType::e4m3: return float{view.as<E4M3>()[at]};
    case DType::e5m2: return float{view.as<E5M2>()[at]};
    default: fail(ExitCode::bug, "gemm cannot read {}", name(view.dtype));
  }
}

void check_operand(const ConstScaledView& view, std::string_view op, std::string_view which) {
  check(view.values.shape.rank() == 2, "{}: {} is {}, not a matrix", op, which, view.values);
  if (!view.scaled()) {
    check(!byte_format(view.values.dtype), "{}: {} is {} without scales", op, which, view.values);
    return;
  }
  const Shape want = scales_shape(view.values.shape[0], view.values.shape[1], view.granularity);
  check(view.scales.shape == want, "{}: scales of {} are {}, want {}", op, which, view.scales.shape, want);
  check(view.scales.dtype == DType::f32 || view.scales.dtype == DType::e8m0, "{}: scales of {} are {}", op, which,
        name(view.scales.dtype));
}

}  // namespace

Operand operand_of(const ConstScaledView& view, bool power_of_two) {
  Operand o;
  o.values = view.values.data;
  o.dtype = view.values.dtype;
  o.rows = view.values.shape[0];
  o.k = view.values.shape[1];
  o.row_stride = view.values.strides[0];
  o.k_stride = view.values.strides[1];
  if (o.k <= 1) o.k_stride = 1;
  if (!view.scaled()) return o;
  o.scales = view.scales.data;
  o.scale_dtype = view.scales.dtype;
  o.rows_per_scale = view.granularity.rows >= std::max<std::int64_t>(o.rows, 2) ? 0 : view.granularity.rows;
  o.k_per_scale = view.granularity.columns;
  o.scale_row_stride = view.scales.strides[0];
  o.scale_k_stride = view.scales.strides[1];
  o.folded = (power_of_two || o.scale_dtype == DType::e8m0) && byte_format(o.dtype) && all_foldable(view.scales);
  if (!o.folded) o.keep_scales();
  return o;
}

Operand operand_of(const ConstScaledView& view, const RowCast& cast) {
  Operand o = operand_of(view, false);
  o.rows_per_scale = 1;
  o.k_per_scale = kRowTile128.columns;
  o.folded = cast.kind != ScaleKind::f32;
  if (!o.folded) o.keep_scales();
  return o;
}

void check_problem(const Problem& p, std::string_view op) {
  check_operand(p.a, op, "a");
  check_operand(p.b, op, "b");
  check(p.c.shape.rank() == 2, "{}: c is {}, not a matrix", op, p.c);
  const std::int64_t m = p.c.shape[0];
  const std::int64_t n = p.c.shape[1];
  const std::int64_t k = p.a.values.shape[1];
  check(p.a.values.shape[0] == m && p.b.values.shape[0] == n && p.b.values.shape[1] == k,
        "{}: c {} does not fit a {} and b {} (c[m,n], a[m,k], b[n,k])", op, p.c.shape, p.a.values.shape,
        p.b.values.shape);
  check(n <= 1 || p.c.strides[1] == 1, "{}: elements of a row of c must be neighbours", op);
  check(p.bias.empty() || (p.bias.shape.rank() == 1 && p.bias.shape[0] == n && (n <= 1 || p.bias.strides[0] == 1)),
        "{}: bias is {}, want [{}]", op, p.bias, n);
  check((p.a.scaled() || p.cast != nullptr) == p.b.scaled(), "{}: scales must stand beside both operands or none", op);
  if (p.packed_b != nullptr) {
    using Access = PackedMatrixAccess;
    check(Access::n(*p.packed_b) == n && Access::k(*p.packed_b) == k && p.packed_index < Access::matrices(*p.packed_b),
          "{}: packed_b holds {} matrices [{}, {}], want number {} of [{}, {}]", op, Access::matrices(*p.packed_b),
          Access::n(*p.packed_b), Access::k(*p.packed_b), p.packed_index, n, k);
  } else {
    check(!p.b.values.empty() || p.b.values.elements() == 0, "{}: b has no data and is not packed", op);
  }
  if (p.symmetric) {
    const auto one = [](const ConstTensorView& a, const ConstTensorView& b) {
      return a.data == b.data && a.dtype == b.dtype && a.shape == b.shape && a.strides == b.strides;
    };
    check(one(p.a.values, p.b.values) && one(p.a.scales, p.b.scales), "{}: c is called symmetric, but a is not b", op);
    check(p.packed_b == nullptr && p.bias.empty() && !p.accumulate,
          "{}: a symmetric c is overwritten, without bias and packed_b", op);
  }
}

std::string lacks(const Machine& machine) {
  if (machine.feature == nullptr || cpu_features().*machine.feature) return {};
  return fmt::format("the processor has no {}", machine.feature_name);
}

std::string refuses(const Machine& machine, const Problem& p) {
  if (std::string lacking = lacks(machine); !lacking.empty()) return lacking;
  const DType a = p.cast == nullptr ? p.a.values.dtype : p.cast->values;
  const DType b = p.b.values.dtype;
  if (p.c.device.kind != DeviceKind::cpu) return "runs on a CPU";
  if (p.c.dtype != DType::f32 && p.c.dtype != DType::bf16) return "c must be f32 or bf16";
  const bool bytes = byte_format(a) && byte_format(b);
  if (!bytes && (a != b || (a != DType::f32 && a != DType::bf16))) return "a and b must be f32, bf16 or 8-bit alike";
  if (machine.layout == PackedMatrix::Layout::bf16_pairs && a == DType::f32) return "tiles hold bf16 and 8-bit formats";
  if (machine.layout == PackedMatrix::Layout::bf16_halves && a != DType::bf16) return "its panels hold bf16";
  const auto neighbours = [](const ConstTensorView& v) {
    return v.strides[1] == 1 || v.strides[0] == 1 || v.shape[0] <= 1 || v.shape[1] <= 1;
  };
  if (machine.layout == PackedMatrix::Layout::bf16_pairs &&
      !(neighbours(p.a.values) && (p.packed_b != nullptr || neighbours(p.b.values)))) {
    return "one dim of each operand must be contiguous";
  }
  if (p.packed_b != nullptr && PackedMatrixAccess::layout(*p.packed_b) != machine.layout) {
    return "b is packed for another variant";
  }
  const auto known = [](const ConstScaledView& v) {
    const Granularity g = v.granularity;
    return !v.scaled() || g == kPerTensor || ((g.columns == 128 || g.columns == 32) && (g.rows == 1 || g.rows == 128));
  };
  if (!known(p.a) || !known(p.b)) return "scales must be per tensor, 1x128, 128x128 or 1x32";
  return {};
}

void reference(const Problem& p) {
  check(!p.b.values.empty() || p.b.values.elements() == 0, "gemm reference: b is only given packed");
  const Operand a = operand_of(p.a, false);
  const Operand b = operand_of(p.b, false);
  for (std::int64_t i = 0; i < p.c.shape[0]; ++i) {
    for (std::int64_t j = 0; j < p.c.shape[1]; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < a.k; ++k) {
        const double scale =
            (p.a.scaled() ? double{a.scale(i, k)} : 1.0) * (p.b.scaled() ? double{b.scale(j, k)} : 1.0);
        sum += scale * element(p.a.values, i * a.row_stride + k * a.k_stride) *
               element(p.b.values, j * b.row_stride + k * b.k_stride);
      }
      if (!p.bias.empty()) sum += element(p.bias, j);
      const std::int64_t at = i * p.c.strides[0] + j;
      if (p.accumulate) sum += element(p.c, at);
      if (p.c.dtype == DType::f64) {
        p.c.as<double>()[at] = sum;
      } else if (p.c.dtype == DType::f32) {
        p.c.as<float>()[at] = static_cast<float>(sum);
      } else {
        check(p.c.dtype == DType::bf16, "gemm cannot write {}", name(p.c.dtype));
        p.c.as<BFloat16>()[at] = BFloat16(static_cast<float>(sum));
      }
    }
  }
}

Problem problem_of(const GemmArgs& args) {
  return {args.c,        args.a, args.b,    args.accumulate, args.power_of_two_scales,
          args.packed_b, 0,      args.bias, nullptr,         args.symmetric};
}

const Machine& machine_for([[maybe_unused]] DType dtype) {
#if defined(__x86_64__)
  const std::string pin = variant_detail::pinned("gemm");
  const bool tiles = cpu_features().amx_bf16 && dtype != DType::f32 && (pin.empty() || pin == "amx");
  if (tiles) return amx::machine;
  if (cpu_features().avx512 && !pin.starts_with("avx2") && pin != "portable") return avx512::machine;
  const bool halves = dtype == DType::bf16 && pin != "avx2";
  if (cpu_features().avx2 && pin != "portable") return halves ? avx2::bf16_machine : avx2::machine;
#endif
  return portable::machine;
}

}  // namespace gemm_detail

namespace {

using gemm_detail::Machine;

template <const Machine& machine>
void run_on(const GemmArgs& args) {
  const std::array problems{gemm_detail::problem_of(args)};
  gemm_detail::run(machine, problems, args.scratch, args.stream);
}

template <const Machine& machine>
std::string refused_by(const GemmArgs& args) {
  return refuses(machine, gemm_detail::problem_of(args));
}

std::string reference_refuses(const GemmArgs& args) {
  if (args.c.device.kind != DeviceKind::cpu) return "runs on a CPU";
  return args.packed_b != nullptr && args.b.values.empty() ? "b is only given packed" : "";
}

void reference_run(const GemmArgs& args) { gemm_detail::reference(gemm_detail::problem_of(args)); }

constexpr std::array kVariants = std::to_array<Variant<GemmArgs>>({
#if SHOESTRING_CUDA
  {"cublaslt", gemm_detail::cublaslt::refuses, gemm_detail::cublaslt::run},
#endif
#if defined(__x86_64__)
      {"amx", refused_by<gemm_detail::amx::machine>, run_on<gemm_detail::amx::machine>},
      {"avx512", refused_by<gemm_detail::avx512::machine>, run_on<gemm_detail::avx512::machine>},
      {"avx2_bf16", refused_by<gemm_detail::avx2::bf16_machine>, run_on<gemm_detail::avx2::bf16_machine>},
      {"avx2", refused_by<gemm_detail::avx2::machine>, run_on<gemm_detail::avx2::machine>},
#endif
      {"portable", refused_by<gemm_detail::portable::machine>, run_on<gemm_detail::portable::machine>},
      {"reference", reference_refuses, reference_run},
});

}  // namespace

void pack(const ConstScaledView& b, bool power_of_two_scales, PackedMatrix& into, Stream& stream) {
  gemm_detail::pack(gemm_detail::machine_for(b.values.dtype), {&b, 1}, power_of_two_scales, into, stream);
}

std::int64_t PackedMatrix::packed_bytes(std::int64_t n, std::int64_t k, DType dtype, Granularity granularity,
                                        std::int64_t matrices) {
  const Machine& machine = gemm_detail::machine_for(dtype);
  const std::int64_t panels = gemm_detail::divide_up(n, gemm_detail::kPanel);
  const std::int64_t k_padded = gemm_detail::round_up(k, machine.k_multiple);
  const bool blocks = size_bytes(dtype) == 1 && granularity.columns != 0;
  const std::int64_t scales = blocks ? panels * gemm_detail::divide_up(k, granularity.columns) * 128 : 64;
  return matrices * (panels * gemm_detail::kPanel * k_padded * machine.panel_element_bytes + scales);
}

std::int64_t gemm_scratch_bytes(std::int64_t m, std::int64_t n, std::int64_t k, int workers, bool prepacked_b) {
  return gemm_detail::problem_bytes(1) + gemm_detail::panel_bytes(prepacked_b ? 0 : n, k) +
         (prepacked_b ? Arena::footprint(gemm_detail::round_up(n, 32) * gemm_detail::divide_up(k, 32) * 4) : 0) +
         workers * gemm_detail::workspace_bytes(m, k);
}

std::span<const Variant<GemmArgs>> gemm_variants() { return kVariants; }

void gemm(const GemmArgs& args) {
  gemm_detail::check_problem(gemm_detail::problem_of(args), "gemm");
  if (args.c.elements() == 0) return;
  if (args.stream.dry()) {
    const std::int64_t on_cpu = gemm_scratch_bytes(args.c.shape[0], args.c.shape[1], args.a.values.shape[1],
                                                   args.stream.worker_count(), args.packed_b != nullptr);
    const bool is_cpu = args.stream.device().kind == DeviceKind::cpu;
    return args.scratch.claim(is_cpu ? on_cpu : gemm_detail::cublaslt::kScratchBytes);
  }
  choose("gemm", kVariants, args).run(args);
}

}  // namespace shoestring
