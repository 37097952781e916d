// Embedding in vectors: rows are copied, gradients added, sixteen columns at a time. Compiled once for each instruction
// set.
#include <algorithm>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/embedding.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/embedding_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::embedding::HWY_NAMESPACE {
namespace {

using namespace shoestring::HWY_NAMESPACE::lanes;

template <class From, class To>
void copy_rows(const EmbeddingArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t hidden = args.y.shape[1];
  const auto row = [&](std::int64_t token) {
    return args.table.as<From>() + args.ids.as<std::int32_t>()[token] * args.table.strides[0];
  };
  for (std::int64_t token = begin; token < end; ++token) {
    const From* from = row(token);
    const From* next = row(std::min(token + 1, end - 1));  // rows lie anywhere: no processor foresees where the next is
    To* to = args.y.as<To>() + token * args.y.strides[0];
    std::int64_t j = 0;
    for (; j + kLanes <= hidden; j += kLanes) {
      __builtin_prefetch(next + j);
      store(to + j, load(from + j));
    }
    if (j < hidden) store(to + j, load(from + j, first(hidden - j)), first(hidden - j));
  }
}

template <class From>
void add_columns(const EmbeddingBackwardArgs& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t token = 0; token < args.dy.shape[0]; ++token) {
    const From* from = args.dy.as<From>() + token * args.dy.strides[0];
    float* to = args.dtable.as<float>() + args.ids.as<std::int32_t>()[token] * args.dtable.strides[0];
    for (std::int64_t j = begin; j < end; j += kLanes) {
      const First lanes = first(end - j);
      store(to + j, load(to + j, lanes) + load(from + j, lanes), lanes);
    }
  }
}

}  // namespace

void forward(const EmbeddingArgs& args, std::int64_t begin, std::int64_t end) {
  const bool to_float = args.y.dtype == DType::f32;
  if (args.table.dtype == DType::f32) {
    return to_float ? copy_rows<float, float>(args, begin, end) : copy_rows<float, BFloat16>(args, begin, end);
  }
  to_float ? copy_rows<BFloat16, float>(args, begin, end) : copy_rows<BFloat16, BFloat16>(args, begin, end);
}

void backward(const EmbeddingBackwardArgs& args, std::int64_t begin, std::int64_t end) {
  args.dy.dtype == DType::f32 ? add_columns<float>(args, begin, end) : add_columns<BFloat16>(args, begin, end);
}

}  // namespace shoestring::embedding::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::embedding::simd {

std::string refuses(const EmbeddingArgs& args) {
  if (args.y.device.kind != DeviceKind::cpu) return "the tensors are on a GPU";
  return needs_simd(args, args.table.dtype == DType::f64 ? DType::f64 : args.y.dtype);
}
std::string refuses(const EmbeddingBackwardArgs& args) {
  if (args.dy.device.kind != DeviceKind::cpu) return "the tensors are on a GPU";
  return needs_simd(args, args.dtable.dtype == DType::f64 ? DType::f64 : args.dy.dtype);
}

void forward(const EmbeddingArgs& args) {
  const auto range = SHOESTRING_SIMD(forward);
  args.stream.workers().split(args.y.shape[0], 16,
                              [&](std::int64_t begin, std::int64_t end) { range(args, begin, end); });
}

// Workers split columns, so that every element is summed in token order whatever their number.
void backward(const EmbeddingBackwardArgs& args) {
  const auto range = SHOESTRING_SIMD(backward);
  args.stream.workers().split(args.dy.shape[1], 64,
                              [&](std::int64_t begin, std::int64_t end) { range(args, begin, end); });
}

}  // namespace shoestring::embedding::simd
#endif
