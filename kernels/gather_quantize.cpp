#include "kernels/gather_quantize.h"

#include <array>

#include "kernels/base/check.h"
#include "kernels/cpu_refusals.h"
#include "kernels/quantize_blocks.h"

namespace shoestring {
namespace {

QuantizeArgs casts(const GatherQuantizeArgs& args) {
  const ScaledView& first = args.row_tiles.values.empty() ? args.column_tiles : args.row_tiles;
  const std::int64_t rows = first.values.empty() ? 0 : first.values.shape[0];
  return quantization::casts_of(args,
                                quantization::unwritten({rows, args.x.shape[1]}, args.x.dtype, args.stream.device()));
}

void run_in_blocks(const GatherQuantizeArgs& args) {
  const auto make = [&](TensorView rows, std::int64_t first) {
    Permutation part = args.plan;
    part.slot_of_row = part.slot_of_row.slice(0, first, rows.shape[0]);
    gather_rows({.xp = rows, .x = args.x, .plan = part, .stream = args.stream});
  };
  quantization::quantize_in_blocks(casts(args), make, args.scratch);
}

constexpr std::array kVariants = std::to_array<Variant<GatherQuantizeArgs>>({
#if SHOESTRING_CUDA
  {"cuda", permute::cuda::refuses, permute::cuda::gather_quantized},
#endif
      {"cpu", needs_cpu<GatherQuantizeArgs>, run_in_blocks},
});

}  // namespace

std::int64_t gather_quantize_scratch_bytes(std::int64_t hidden) { return quantization::block_scratch_bytes(hidden); }

void gather_quantize(const GatherQuantizeArgs& args) {
  const QuantizeArgs made = casts(args);
  check(args.x.shape.rank() == 2 && (args.x.shape[1] <= 1 || args.x.strides[1] == 1), "gather_quantize: x is {}",
        args.x);
  const std::int64_t slots = args.plan.row_of_slot.shape[0];
  check(made.x.shape[0] <= args.plan.slot_of_row.shape[0] &&
            (args.x.shape[0] == 0 ? slots == 0 : slots % args.x.shape[0] == 0),
        "gather_quantize: {} rows by a plan of {} slots for tokens {}", made.x.shape[0], slots, args.x);
  if (made.x.elements() == 0) return;
  quantization::check_casts(made, "gather_quantize");
  if (args.stream.dry() && args.stream.device().kind == DeviceKind::cpu) {
    args.scratch.claim(gather_quantize_scratch_bytes(made.x.shape[1]));
  }
  choose("gather_quantize", kVariants, args).run(args);
}

std::span<const Variant<GatherQuantizeArgs>> gather_quantize_variants() { return kVariants; }

}  // namespace shoestring
