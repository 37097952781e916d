#include <immintrin.h>

#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"
#include "kernels/embedding.h"
#include "kernels/lanes_avx512.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
// GCC 12 takes undefined operands inside its own intrinsics for uninitialised values (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace shoestring::embedding::avx512 {
namespace {

namespace lanes = lanes_avx512;

template <class From, class To>
void copy_rows(const EmbeddingArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t hidden = args.y.shape[1];
  for (std::int64_t token = begin; token < end; ++token) {
    const From* from = args.table.as<From>() + args.ids.as<std::int32_t>()[token] * args.table.strides[0];
    To* to = args.y.as<To>() + token * args.y.strides[0];
    for (std::int64_t j = 0; j < hidden; j += 16) {
      const __mmask16 mask = lanes::first(hidden - j);
      lanes::store(to + j, lanes::load(from + j, mask), mask);
    }
  }
}

void copy_range(const EmbeddingArgs& args, std::int64_t begin, std::int64_t end) {
  const bool from_float = args.table.dtype == DType::f32;
  const bool to_float = args.y.dtype == DType::f32;
  if (from_float && to_float) return copy_rows<float, float>(args, begin, end);
  if (from_float) return copy_rows<float, BFloat16>(args, begin, end);
  if (to_float) return copy_rows<BFloat16, float>(args, begin, end);
  copy_rows<BFloat16, BFloat16>(args, begin, end);
}

template <class From>
void add_columns(const EmbeddingBackwardArgs& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t token = 0; token < args.dy.shape[0]; ++token) {
    const From* from = args.dy.as<From>() + token * args.dy.strides[0];
    float* to = args.dtable.as<float>() + args.ids.as<std::int32_t>()[token] * args.dtable.strides[0];
    for (std::int64_t j = begin; j < end; j += 16) {
      const __mmask16 mask = lanes::first(end - j);
      lanes::store(to + j, _mm512_add_ps(lanes::load(to + j, mask), lanes::load(from + j, mask)), mask);
    }
  }
}

void add_range(const EmbeddingBackwardArgs& args, std::int64_t begin, std::int64_t end) {
  if (args.dy.dtype == DType::f32) {
    add_columns<float>(args, begin, end);
  } else {
    add_columns<BFloat16>(args, begin, end);
  }
}

}  // namespace
}  // namespace shoestring::embedding::avx512
#pragma GCC pop_options

namespace shoestring::embedding::avx512 {
namespace {

std::string refuses_tensors(const ConstTensorView& table, const ConstTensorView& rows) {
  if (rows.device.kind != DeviceKind::cpu) return "the tensors are on a GPU";
  if (!cpu_features().avx512) return "the processor lacks AVX-512";
  if (table.dtype == DType::f64 || rows.dtype == DType::f64) return "f64 is served by the reference only";
  return {};
}

}  // namespace

std::string refuses(const EmbeddingArgs& args) { return refuses_tensors(args.table, args.y); }
std::string refuses(const EmbeddingBackwardArgs& args) { return refuses_tensors(args.dtable, args.dy); }

void forward(const EmbeddingArgs& args) {
  args.stream.workers().split(args.y.shape[0], 16,
                              [&](std::int64_t begin, std::int64_t end) { copy_range(args, begin, end); });
}

// Workers split columns, so that every element is summed in token order whatever their number.
void backward(const EmbeddingBackwardArgs& args) {
  args.stream.workers().split(args.dy.shape[1], 64,
                              [&](std::int64_t begin, std::int64_t end) { add_range(args, begin, end); });
}

}  // namespace shoestring::embedding::avx512
