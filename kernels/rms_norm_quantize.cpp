#include "kernels/rms_norm_quantize.h"

#include <array>

#include "kernels/base/check.h"
#include "kernels/cpu_refusals.h"
#include "kernels/quantize_blocks.h"

namespace shoestring {
namespace {

QuantizeArgs casts(const RmsNormQuantizeArgs& args) {
  return quantization::casts_of(args, quantization::unwritten(args.x.shape, args.x.dtype, args.stream.device()));
}

void run_in_blocks(const RmsNormQuantizeArgs& args) {
  const auto make = [&](TensorView y, std::int64_t first) {
    const auto rows_of = [&](auto view) { return view.empty() ? view : view.slice(0, first, y.shape[0]); };
    rms_norm_forward({.y = y,
                      .rstd = rows_of(args.rstd),
                      .x = rows_of(args.x),
                      .gamma = args.gamma,
                      .residual = rows_of(args.residual),
                      .sum = rows_of(args.sum),
                      .eps = args.eps,
                      .stream = args.stream});
  };
  quantization::quantize_in_blocks(casts(args), make, args.scratch);
}

constexpr std::array kVariants = std::to_array<Variant<RmsNormQuantizeArgs>>({
#if SHOESTRING_CUDA
  {"cuda", rms_norm::cuda::refuses, rms_norm::cuda::forward_quantized},
#endif
      {"cpu", needs_cpu<RmsNormQuantizeArgs>, run_in_blocks},
});

}  // namespace

std::int64_t rms_norm_quantize_scratch_bytes(std::int64_t tokens, std::int64_t hidden, DeviceKind kind) {
  return kind == DeviceKind::cpu ? quantization::block_scratch_bytes(hidden) : Arena::footprint(tokens * 4);
}

void rms_norm_quantize(const RmsNormQuantizeArgs& args) {
  check(args.x.shape.rank() == 2, "rms_norm_quantize: x is [tokens, hidden], not {}", args.x);
  if (args.x.elements() == 0) return;
  rms_norm::check_forward({.rstd = args.rstd,
                           .x = args.x,
                           .gamma = args.gamma,
                           .residual = args.residual,
                           .sum = args.sum,
                           .eps = args.eps,
                           .stream = args.stream});
  quantization::check_casts(casts(args), "rms_norm_quantize");
  if (args.stream.dry()) {
    args.scratch.claim(rms_norm_quantize_scratch_bytes(args.x.shape[0], args.x.shape[1], args.stream.device().kind));
  }
  choose("rms_norm_quantize", kVariants, args).run(args);
}

std::span<const Variant<RmsNormQuantizeArgs>> rms_norm_quantize_variants() { return kVariants; }

}  // namespace shoestring
