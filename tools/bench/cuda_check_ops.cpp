// Ops of a model beside quantisation, products and attention on a CUDA device against the CPU, and what of RMSNorm a
// plain matrix does not reach. Outputs begin as NaN on the device.
#include <algorithm>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/rms_norm.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

/// [tokens, heads, dim] inside a fused projection three times as wide.
TensorView middle(Tensor& fused, std::int64_t heads, std::int64_t dim) {
  TensorView view = fused.view().slice(1, heads * dim, heads * dim);
  view.strides = {view.strides[0], dim, 1};
  view.shape = {view.shape[0], heads, dim};
  return view;
}

// Heads in place, an accumulated input gradient, and a weight gradient with room and without, which must agree.
void check_heads(Bench& bench, DType dtype, std::int64_t tokens, std::int64_t dim) {
  constexpr std::int64_t kHeads = 3;
  const std::int64_t width = kHeads * dim;
  const Tensor x = numbers(dtype, {tokens, 3 * width}, 5), dy = numbers(dtype, {tokens, 3 * width}, 6);
  const Tensor gamma = numbers(DType::f32, {dim}, 7);
  struct Results {
    Tensor y, rstd, dx, dgamma, partials;
  };
  const auto run = [&](Stream& stream, bool room) {
    const Device d = stream.device();
    const auto there = [&](const Tensor& from) {
      Tensor to(from.dtype(), from.shape(), d);
      copy(to, from, stream);
      return to;
    };
    const std::int64_t blocks = (tokens * kHeads + kRmsNormRowBlock - 1) / kRmsNormRowBlock;
    Results r{there(x), Tensor(DType::f32, {tokens, kHeads}, d), there(dy), Tensor(DType::f32, {dim}, d),
              Tensor(DType::f32, {blocks, dim}, d)};
    Tensor x_there = there(x), dy_there = there(dy), gamma_there = there(gamma);
    const TensorView x_heads = middle(x_there, kHeads, dim), dy_heads = middle(dy_there, kHeads, dim);
    const TensorView y = middle(r.y, kHeads, dim);
    rms_norm_forward({.y = y, .rstd = r.rstd, .x = y, .gamma = gamma_there, .eps = 1e-6f, .stream = stream});
    rms_norm_input_gradient({.dx = middle(r.dx, kHeads, dim),
                             .dy = dy_heads,
                             .x = x_heads,
                             .gamma = gamma_there,
                             .rstd = r.rstd,
                             .accumulate = true,
                             .stream = stream});
    RmsNormWeightGradientArgs weight{
        .dgamma = r.dgamma, .dy = dy_heads, .x = x_heads, .rstd = r.rstd, .stream = stream};
    if (room) weight.partials = r.partials;
    rms_norm_weight_gradient(weight);
    stream.synchronize();  // the inputs end here
    return r;
  };
  const Results expected = run(bench.cpu, false), device = run(bench.cuda, false), with_room = run(bench.cuda, true);
  const auto verdict = [&](const char* what, const Tensor& ours, const Tensor& theirs, std::int64_t length) {
    double largest = 0;
    for (std::int64_t i = 0; i < theirs.view().elements(); ++i) {
      largest = std::max(largest, std::abs(value(theirs, i)));
    }
    const double worst = worst_error(bench.to_host(ours), theirs, sum_error(length), {largest + 1});
    bench.verdict(fmt::format("rms_norm heads in place: {} {} [{}, 3, {}]", what, name(dtype), tokens, dim), worst <= 1,
                  fmt::format("worst error {:.3f} of its bound", worst));
  };
  verdict("y", device.y, expected.y, dim);
  verdict("rstd", device.rstd, expected.rstd, dim);
  verdict("dx", device.dx, expected.dx, dim);
  verdict("dgamma", device.dgamma, expected.dgamma, tokens * kHeads);
  const std::string detail = difference(bench.to_host(with_room.dgamma), bench.to_host(device.dgamma));
  bench.verdict(fmt::format("rms_norm dgamma {} [{}, 3, {}] with room", name(dtype), tokens, dim), detail.empty(),
                detail);
}

}  // namespace

void check_ops(Bench& bench) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    bench.part("rms_norm heads", [&] { check_heads(bench, dtype, 90, 64); });
    bench.part("rms_norm heads", [&] { check_heads(bench, dtype, 45, 600); });
  }
}

}  // namespace shoestring::cuda_compare
