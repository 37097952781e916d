// SwiGLU into a low-precision format.
#include <array>

#include "kernels/base/check.h"
#include "kernels/cpu_refusals.h"
#include "kernels/quantize_blocks.h"
#include "kernels/swiglu.h"

namespace shoestring {
namespace {

QuantizeArgs casts(const SwigluQuantizeArgs& args) {
  const Shape& gate_up = args.gate_up.values.shape;
  return quantization::casts_of(
      args, quantization::unwritten({gate_up[0], gate_up[1] / 2}, args.format, args.stream.device()));
}

void run_in_blocks(const SwigluQuantizeArgs& args) {
  const auto make = [&](TensorView y, std::int64_t first) {
    const auto rows_of = [&](ConstTensorView view) { return view.empty() ? view : view.slice(0, first, y.shape[0]); };
    ConstScaledView gate_up = args.gate_up;
    gate_up.values = rows_of(gate_up.values);
    gate_up.scales = rows_of(gate_up.scales);
    swiglu_forward({.y = y,
                    .gate_up = gate_up,
                    .row_weight = rows_of(args.row_weight),
                    .clamp = args.clamp,
                    .stream = args.stream});
  };
  quantization::quantize_in_blocks(casts(args), make, args.scratch);
}

constexpr std::array kVariants = std::to_array<Variant<SwigluQuantizeArgs>>({
#if SHOESTRING_CUDA
  {"cuda", swiglu::cuda::refuses, swiglu::cuda::forward_quantized},
#endif
      {"cpu", needs_cpu<SwigluQuantizeArgs>, run_in_blocks},
});

}  // namespace

std::int64_t swiglu_quantize_scratch_bytes(std::int64_t f) { return quantization::block_scratch_bytes(f); }

void swiglu_quantize(const SwigluQuantizeArgs& args) {
  if (args.gate_up.values.shape[0] == 0 || args.gate_up.values.shape[1] < 2) return;
  quantization::check_casts(casts(args), "swiglu_quantize");
  if (args.stream.dry() && args.stream.device().kind == DeviceKind::cpu) {
    args.scratch.claim(swiglu_quantize_scratch_bytes(args.gate_up.values.shape[1] / 2));
  }
  choose("swiglu_quantize", kVariants, args).run(args);
}

std::span<const Variant<SwigluQuantizeArgs>> swiglu_quantize_variants() { return kVariants; }

}  // namespace shoestring
