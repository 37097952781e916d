// Latent attention's keys in vectors: rows as short as these are copied faster than by a call of memcpy. Compiled once
// for each instruction set.
#include <cstring>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/latent_key.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/latent_key_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::latent_key_op::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using namespace shoestring::HWY_NAMESPACE::lanes;

/// The first element of [token, head] of a [tokens, heads, dim] view.
template <class Element, class View>
auto* row_of(const View& view, std::int64_t token, std::int64_t head) {
  return view.template as<Element>() + token * view.strides[0] + head * view.strides[1];
}

/// Words of as many bytes as an element has.
template <class Element>
using Words = hn::CappedTag<hwy::UnsignedFromSize<sizeof(Element)>, 64 / sizeof(Element)>;

template <class Element>
HWY_INLINE void copy(Element* to, const Element* from, std::int64_t count) {
  const Words<Element> words;
  using Word = hn::TFromD<Words<Element>>;
  constexpr auto kStep = static_cast<std::int64_t>(hn::MaxLanes(Words<Element>()));
  std::int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    hn::StoreU(hn::LoadU(words, reinterpret_cast<const Word*>(from + i)), words, reinterpret_cast<Word*>(to + i));
  }
  if (i < count) std::memcpy(to + i, from + i, static_cast<std::size_t>(count - i) * sizeof(Element));
}

template <class Element>
void join_tokens(const LatentKeyArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t own = args.own.shape[2];
  const std::int64_t shared = args.shared.shape[1];
  for (std::int64_t t = begin; t < end; ++t) {
    const Element* tail = args.shared.as<Element>() + t * args.shared.strides[0];
    for (std::int64_t h = 0; h < args.k.shape[1]; ++h) {
      Element* key = row_of<Element>(args.k, t, h);
      copy(key, row_of<Element>(args.own, t, h), own);
      copy(key + own, tail, shared);
    }
  }
}

template <class Element>
void split_tokens(const LatentKeyGradientArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t own = args.down.shape[2];
  const std::int64_t shared = args.dshared.shape[1];
  for (std::int64_t t = begin; t < end; ++t) {
    for (std::int64_t h = 0; h < args.dk.shape[1]; ++h) {
      copy(row_of<Element>(args.down, t, h), row_of<Element>(args.dk, t, h), own);
    }
    Element* dshared = args.dshared.as<Element>() + t * args.dshared.strides[0];
    for (std::int64_t i = 0; i < shared; i += kLanes) {
      const First lanes = first(shared - i);
      Floats sums = zeros();
      for (std::int64_t h = 0; h < args.dk.shape[1]; ++h) {
        sums = sums + load(row_of<Element>(args.dk, t, h) + own + i, lanes);
      }
      store(dshared + i, sums, lanes);
    }
  }
}

}  // namespace

void join(const LatentKeyArgs& args, std::int64_t begin, std::int64_t end) {
  args.k.dtype == DType::f32 ? join_tokens<float>(args, begin, end) : join_tokens<BFloat16>(args, begin, end);
}

void split(const LatentKeyGradientArgs& args, std::int64_t begin, std::int64_t end) {
  args.dk.dtype == DType::f32 ? split_tokens<float>(args, begin, end) : split_tokens<BFloat16>(args, begin, end);
}

}  // namespace shoestring::latent_key_op::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::latent_key_op::simd {
namespace {

constexpr std::int64_t kTokenGrain = 16;

}  // namespace

std::string refuses(const LatentKeyArgs& args) { return needs_simd(args, args.k.dtype); }
std::string refuses(const LatentKeyGradientArgs& args) { return needs_simd(args, args.dk.dtype); }

void join(const LatentKeyArgs& args) {
  const auto tokens = SHOESTRING_SIMD(join);
  args.stream.workers().split(args.k.shape[0], kTokenGrain,
                              [&](std::int64_t begin, std::int64_t end) { tokens(args, begin, end); });
}

void split(const LatentKeyGradientArgs& args) {
  const auto tokens = SHOESTRING_SIMD(split);
  args.stream.workers().split(args.dk.shape[0], kTokenGrain,
                              [&](std::int64_t begin, std::int64_t end) { tokens(args, begin, end); });
}

}  // namespace shoestring::latent_key_op::simd
#endif
