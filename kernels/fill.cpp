#include "kernels/fill.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"

namespace shoestring {
namespace {

constexpr std::int64_t kGrain = 16384;

template <class Word>
void fill_words(const FillArgs& args) {
  Word word;
  std::memcpy(&word, args.element.data(), sizeof word);
  Word* const words = args.x.as<Word>();
  args.stream.workers().split(args.x.elements(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::fill(words + begin, words + end, word);
  });
}

void fill_on_cpu(const FillArgs& args) {
  switch (size_bytes(args.x.dtype)) {
    case 2: return fill_words<std::uint16_t>(args);
    case 4: return fill_words<std::uint32_t>(args);
    default: return fill_words<std::uint64_t>(args);
  }
}

constexpr std::array kVariants = std::to_array<Variant<FillArgs>>({
#if SHOESTRING_CUDA
  {"cuda", filling::cuda::refuses, filling::cuda::run},
#endif
      {"cpu", needs_cpu<FillArgs>, fill_on_cpu},
});

template <class Element>
std::array<std::byte, 8> bytes_of(Element value) {
  std::array<std::byte, 8> bytes{};
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

std::array<std::byte, 8> element_of(DType dtype, double value) {
  switch (dtype) {
    case DType::f64: return bytes_of(value);
    case DType::f32: return bytes_of(static_cast<float>(value));
    case DType::bf16: return bytes_of(BFloat16(static_cast<float>(value)).bits);
    case DType::i64: return bytes_of(static_cast<std::int64_t>(value));
    case DType::i32: return bytes_of(static_cast<std::int32_t>(value));
    default: fail(ExitCode::bug, "fill: {} is no format for a value", name(dtype));
  }
}

}  // namespace

void fill(TensorView x, double value, Stream& stream) {
  check(x.contiguous(), "fill: {} is not dense", x);
  const FillArgs args{x, element_of(x.dtype, value), stream};
  if (x.elements() == 0) return;
  choose("fill", fill_variants(), args).run(args);
}

std::span<const Variant<FillArgs>> fill_variants() { return kVariants; }

}  // namespace shoestring
