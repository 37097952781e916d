// AdamW on a CUDA device, many spans a launch: a thread an element, operation by operation as the reference, with its
// bits.
//
// Floors: bytes over the memory's speed, 28 an element with f32 moments and 20 with bf16; a launch for every 48 spans.
#include <algorithm>

#include "kernels/adamw.h"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"

namespace shoestring::adamw::cuda {
namespace {

constexpr int kMaxSpans = 48;                  // they travel as a kernel argument, of which there are 4 KiB
constexpr std::int64_t kBlockElements = 4096;  // of one span, for one block of threads

struct Span {
  float* parameter;
  void* first;
  void* second;
  BFloat16* copy;  ///< or nullptr
  const float* gradient;
  std::int64_t count;
  float decay;
  unsigned first_block;
};

struct Parameters {
  Span span[kMaxSpans];
  int spans;
  Coefficients<float> c;  ///< but for the decay, which is the span's own
};
static_assert(sizeof(Parameters) <= 4096);

template <class Moment>
__global__ void __launch_bounds__(kElementThreads) step_kernel(const __grid_constant__ Parameters p) {
  int mine = 0;
  while (mine + 1 < p.spans && p.span[mine + 1].first_block <= blockIdx.x) ++mine;
  const Span& s = p.span[mine];
  const Coefficients<float>& c = p.c;
  auto* first = static_cast<Moment*>(s.first);
  auto* second = static_cast<Moment*>(s.second);
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x - s.first_block) * kBlockElements;
  const std::int64_t end = min(begin + kBlockElements, s.count);
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kElementThreads) {
    const float g = __fmul_rn(c.gradient_scale, s.gradient[i]);
    const float m = fmaf(c.beta1, to_single(first[i]), __fmul_rn(c.one_minus_beta1, g));
    const float v = fmaf(c.beta2, to_single(second[i]), __fmul_rn(__fmul_rn(c.one_minus_beta2, g), g));
    const float update = __fdiv_rn(m, fmaf(__fsqrt_rn(v), c.inverse_root_correction, c.eps));
    const float parameter = fmaf(-c.step_size, update, __fmul_rn(s.decay, s.parameter[i]));
    first[i] = Moment(m);
    second[i] = Moment(v);
    s.parameter[i] = parameter;
    if (s.copy != nullptr) s.copy[i] = BFloat16(parameter);
  }
}

/// Whether two spans may share a launch.
bool alike(const AdamwArgs& a, const AdamwArgs& b) {
  return a.first_moment.dtype == b.first_moment.dtype && a.gradient_scale == b.gradient_scale &&
         a.learning_rate == b.learning_rate && a.beta1 == b.beta1 && a.beta2 == b.beta2 && a.eps == b.eps &&
         a.step == b.step;
}

/// As many of the first of `all` as one launch takes; how many they were.
std::size_t launch_some(std::span<const AdamwArgs> all) {
  Parameters p{};
  p.c = coefficients<float>(all[0]);
  unsigned blocks = 0;
  std::size_t taken = 0;
  for (; taken < all.size() && p.spans < kMaxSpans && alike(all[taken], all[0]); ++taken) {
    const AdamwArgs& args = all[taken];
    const std::int64_t count = args.parameter.elements();
    if (count == 0) continue;
    p.span[p.spans++] = {args.parameter.as<float>(),      args.first_moment.data,
                         args.second_moment.data,         args.copy.as<BFloat16>(),
                         args.gradient.as<float>(),       count,
                         coefficients<float>(args).decay, blocks};
    blocks += static_cast<unsigned>((count + kBlockElements - 1) / kBlockElements);
  }
  if (blocks > 0) {
    launch("adamw", all[0].first_moment.dtype == DType::f32 ? step_kernel<float> : step_kernel<BFloat16>,
           {blocks, kElementThreads, cuda_stream(all[0].stream)}, p);
  }
  return taken;
}

}  // namespace

std::string refuses(const AdamwArgs& args) {
  return needs_cuda(args.stream, {args.parameter, args.first_moment, args.second_moment, args.copy, args.gradient});
}

void steps(std::span<const AdamwArgs> all) {
  while (!all.empty()) all = all.subspan(launch_some(all));
}
void step(const AdamwArgs& args) { steps(std::span(&args, 1)); }

}  // namespace shoestring::adamw::cuda
