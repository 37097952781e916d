#include "kernels/embedding.h"

#include <array>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"

namespace shoestring {
namespace {

bool is_float(DType dtype) { return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::bf16; }

/// Both matrices have `hidden` dense columns; ids name rows of the first one.
void check_matrices(std::string_view op, const ConstTensorView& table, const ConstTensorView& rows,
                    const ConstTensorView& ids) {
  check(table.shape.rank() == 2 && rows.shape.rank() == 2 && table.shape[1] == rows.shape[1],
        "{}: a table {} does not go with rows {}", op, table, rows);
  check(table.strides[1] == 1 && rows.strides[1] == 1, "{}: columns must be contiguous", op);
  check(is_float(table.dtype) && is_float(rows.dtype), "{}: cannot work on {} and {}", op, name(table.dtype),
        name(rows.dtype));
  check(ids.dtype == DType::i32 && ids.shape == Shape{rows.shape[0]} && ids.contiguous(),
        "{}: ids must be i32 [{}], not {}", op, rows.shape[0], ids);
}

void check_ids(const ConstTensorView& ids, std::int64_t vocabulary) {
  if (!ids.device.readable()) return;
  const auto* id = ids.as<std::int32_t>();
  for (std::int64_t token = 0; token < ids.shape[0]; ++token) {
    if (id[token] < 0 || id[token] >= vocabulary) {
      fail(ExitCode::bad_data,
           "embedding: token {} has id {}, but the vocabulary has {}: take data of the model's own tokenizer", token,
           id[token], vocabulary);
    }
  }
}

}  // namespace

namespace embedding::reference {
namespace {

template <class From, class To>
void copy_rows(const EmbeddingArgs& args) {
  const std::int64_t hidden = args.y.shape[1];
  args.stream.workers().split(args.y.shape[0], 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t token = begin; token < end; ++token) {
      const std::int64_t id = args.ids.as<std::int32_t>()[token];
      const From* from = args.table.as<From>() + id * args.table.strides[0];
      To* to = args.y.as<To>() + token * args.y.strides[0];
      for (std::int64_t j = 0; j < hidden; ++j) {
        if constexpr (std::is_same_v<To, double>) {
          to[j] = static_cast<double>(from[j]);
        } else {
          to[j] = To(static_cast<float>(from[j]));
        }
      }
    }
  });
}

template <class From>
void copy_from(const EmbeddingArgs& args) {
  switch (args.y.dtype) {
    case DType::f64: return copy_rows<From, double>(args);
    case DType::f32: return copy_rows<From, float>(args);
    default: return copy_rows<From, BFloat16>(args);
  }
}

// Workers split columns, so that every element is summed in token order whatever their number.
template <class From, class Sum>
void add_rows(const EmbeddingBackwardArgs& args) {
  args.stream.workers().split(args.dy.shape[1], 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t token = 0; token < args.dy.shape[0]; ++token) {
      const std::int64_t id = args.ids.as<std::int32_t>()[token];
      const From* from = args.dy.as<From>() + token * args.dy.strides[0];
      Sum* to = args.dtable.as<Sum>() + id * args.dtable.strides[0];
      for (std::int64_t j = begin; j < end; ++j) to[j] += static_cast<Sum>(from[j]);
    }
  });
}

}  // namespace

void forward(const EmbeddingArgs& args) {
  switch (args.table.dtype) {
    case DType::f64: return copy_from<double>(args);
    case DType::f32: return copy_from<float>(args);
    default: return copy_from<BFloat16>(args);
  }
}

void backward(const EmbeddingBackwardArgs& args) {
  switch (args.dy.dtype) {
    case DType::f64: return add_rows<double, double>(args);
    case DType::f32: return add_rows<float, float>(args);
    default: return add_rows<BFloat16, float>(args);
  }
}

}  // namespace embedding::reference

std::span<const Variant<EmbeddingArgs>> embedding_forward_variants() {
  static constexpr std::array kVariants = std::to_array<Variant<EmbeddingArgs>>({
#if SHOESTRING_CUDA
    {"cuda", embedding::cuda::refuses, embedding::cuda::forward},
#endif
#if defined(__x86_64__)
#endif
        {"simd", embedding::simd::refuses, embedding::simd::forward},
        {"reference", needs_cpu<EmbeddingArgs>, embedding::reference::forward},
  });
  return kVariants;
}

std::span<const Variant<EmbeddingBackwardArgs>> embedding_backward_variants() {
  static constexpr std::array kVariants = std::to_array<Variant<EmbeddingBackwardArgs>>({
#if SHOESTRING_CUDA
    {"cuda", embedding::cuda::refuses, embedding::cuda::backward},
#endif
#if defined(__x86_64__)
#endif
        {"simd", embedding::simd::refuses, embedding::simd::backward},
        {"reference", needs_cpu<EmbeddingBackwardArgs>, embedding::reference::backward},
  });
  return kVariants;
}

void embedding_forward(const EmbeddingArgs& args) {
  check_matrices("embedding_forward", args.table, args.y, args.ids);
  check_ids(args.ids, args.table.shape[0]);
  if (args.y.elements() == 0) return;
  choose("embedding_forward", embedding_forward_variants(), args).run(args);
}

void embedding_backward(const EmbeddingBackwardArgs& args) {
  check_matrices("embedding_backward", args.dtable, args.dy, args.ids);
  const DType sum = args.dy.dtype == DType::f64 ? DType::f64 : DType::f32;
  check(args.dtable.dtype == sum, "embedding_backward: dtable must be {}, not {}", name(sum), name(args.dtable.dtype));
  check_ids(args.ids, args.dtable.shape[0]);
  if (args.dy.elements() == 0) return;
  choose("embedding_backward", embedding_backward_variants(), args).run(args);
}

}  // namespace shoestring
