#include "kernels/latent_key.h"

#include <array>
#include <cstring>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"

namespace shoestring {
namespace latent_key_op::reference {
namespace {

constexpr std::int64_t kTokenGrain = 16;

/// Byte address of [token, head] of a [tokens, heads, dim] view.
template <class View>
auto* row_of(const View& view, std::int64_t token, std::int64_t head) {
  return view.template as<char>() + (token * view.strides[0] + head * view.strides[1]) * size_bytes(view.dtype);
}

std::size_t row_bytes(const ConstTensorView& view) {
  return static_cast<std::size_t>(view.shape[view.shape.rank() - 1] * size_bytes(view.dtype));
}

void join(const LatentKeyArgs& args) {
  const std::size_t own = row_bytes(args.own);
  const std::size_t shared = row_bytes(args.shared);
  const std::int64_t heads = args.k.shape[1];
  args.stream.workers().split(args.k.shape[0], kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const char* tail = args.shared.as<char>() + t * args.shared.strides[0] * size_bytes(args.shared.dtype);
      for (std::int64_t h = 0; h < heads; ++h) {
        char* key = row_of(args.k, t, h);
        std::memcpy(key, row_of(args.own, t, h), own);
        std::memcpy(key + own, tail, shared);
      }
    }
  });
}

/// The shared part: sums in Sum over the heads, in order.
template <class Element, class Sum>
void sum_heads(const LatentKeyGradientArgs& args, std::int64_t token, Sum* sums) {
  const std::int64_t shared = args.dshared.shape[1];
  const std::int64_t own = args.down.shape[2];
  for (std::int64_t i = 0; i < shared; ++i) sums[i] = 0;
  for (std::int64_t h = 0; h < args.dk.shape[1]; ++h) {
    const Element* dk = args.dk.as<Element>() + token * args.dk.strides[0] + h * args.dk.strides[1] + own;
    for (std::int64_t i = 0; i < shared; ++i) sums[i] += static_cast<Sum>(dk[i]);
  }
  Element* out = args.dshared.as<Element>() + token * args.dshared.strides[0];
  for (std::int64_t i = 0; i < shared; ++i) out[i] = Element(sums[i]);
}

void split_gradient(const LatentKeyGradientArgs& args) {
  const std::size_t own = row_bytes(args.down);
  args.stream.workers().split(args.dk.shape[0], kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> sums(static_cast<std::size_t>(args.dshared.shape[1]));
    std::vector<float> single(sums.size());
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t h = 0; h < args.dk.shape[1]; ++h) {
        std::memcpy(row_of(args.down, t, h), row_of(args.dk, t, h), own);
      }
      switch (args.dk.dtype) {
        case DType::f64: sum_heads<double>(args, t, sums.data()); break;
        case DType::f32: sum_heads<float>(args, t, single.data()); break;
        default: sum_heads<BFloat16>(args, t, single.data()); break;
      }
    }
  });
}

}  // namespace
}  // namespace latent_key_op::reference

namespace {

constexpr std::array kJoin = std::to_array<Variant<LatentKeyArgs>>({
#if SHOESTRING_CUDA
  {"cuda", latent_key_op::cuda::refuses, latent_key_op::cuda::join},
#endif
      {"simd", latent_key_op::simd::refuses, latent_key_op::simd::join},
      {"reference", needs_cpu<LatentKeyArgs>, latent_key_op::reference::join},
});
constexpr std::array kSplit = std::to_array<Variant<LatentKeyGradientArgs>>({
#if SHOESTRING_CUDA
  {"cuda", latent_key_op::cuda::refuses, latent_key_op::cuda::split},
#endif
      {"simd", latent_key_op::simd::refuses, latent_key_op::simd::split},
      {"reference", needs_cpu<LatentKeyGradientArgs>, latent_key_op::reference::split_gradient},
});

bool dense_last(const ConstTensorView& view) { return view.strides[view.shape.rank() - 1] == 1; }

void check_shapes(const ConstTensorView& k, const ConstTensorView& own, const ConstTensorView& shared) {
  check(k.shape.rank() == 3 && own.shape.rank() == 3 && shared.shape.rank() == 2 && own.shape[0] == k.shape[0] &&
            shared.shape[0] == k.shape[0] && own.shape[1] == k.shape[1] && own.shape[2] + shared.shape[1] == k.shape[2],
        "latent_key: {} from {} and {}", k, own, shared);
  check(k.dtype == own.dtype && k.dtype == shared.dtype &&
            (k.dtype == DType::f64 || k.dtype == DType::f32 || k.dtype == DType::bf16),
        "latent_key: formats {}, {}, {}", name(k.dtype), name(own.dtype), name(shared.dtype));
  check(dense_last(k) && dense_last(own) && dense_last(shared), "latent_key: the last dim must be dense");
}

}  // namespace

void latent_key(const LatentKeyArgs& args) {
  check_shapes(args.k, args.own, args.shared);
  if (args.k.shape[0] == 0) return;
  choose("latent_key", kJoin, args).run(args);
}

void latent_key_gradient(const LatentKeyGradientArgs& args) {
  check_shapes(args.dk, args.down, args.dshared);
  if (args.dk.shape[0] == 0) return;
  choose("latent_key_gradient", kSplit, args).run(args);
}

std::span<const Variant<LatentKeyArgs>> latent_key_variants() { return kJoin; }
std::span<const Variant<LatentKeyGradientArgs>> latent_key_gradient_variants() { return kSplit; }

}  // namespace shoestring
