#include "kernels/attention.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "kernels/attention_cuda.h"
#if SHOESTRING_CUDNN
#include "kernels/attention_cudnn.h"
#include "kernels/attention_cudnn_graph.h"
#endif
#include "kernels/attention_variants.h"
#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"

namespace shoestring {
namespace {

void check_heads(std::string_view op, std::string_view what, const ConstTensorView& view, const Shape& shape,
                 DType dtype) {
  check(view.shape == shape && view.dtype == dtype && (view.strides[2] == 1 || view.elements() == 0),
        "{}: {} must be {} {} with a contiguous last dim, not {}", op, what, name(dtype), shape, view);
}

void check_documents(std::string_view op, std::span<const std::int32_t> starts, std::int64_t tokens) {
  if (starts.empty()) return;
  check(starts.front() == 0 && starts.back() == tokens, "{}: document_starts must go from 0 to {}, not from {} to {}",
        op, tokens, starts.front(), starts.back());
  for (std::size_t d = 1; d < starts.size(); ++d) {
    check(starts[d] > starts[d - 1], "{}: document_starts[{}] is {} behind {}", op, d, starts[d], starts[d - 1]);
  }
}

void check_inputs(std::string_view op, double scale, const ConstTensorView& q, const ConstTensorView& k,
                  const ConstTensorView& v, const ConstTensorView& lse, const ConstTensorView& segment_start) {
  check(q.shape.rank() == 3 && k.shape.rank() == 3 && v.shape.rank() == 3,
        "{}: q, k, v must be [tokens, heads, dim], not {}, {}, {}", op, q, k, v);
  check(scale > 0, "{}: scale must be positive, not {}", op, scale);
  const std::int64_t tokens = q.shape[0];
  const std::int64_t heads = q.shape[1];
  const std::int64_t kv_heads = k.shape[1];
  check(q.dtype == DType::f64 || q.dtype == DType::f32 || q.dtype == DType::bf16, "{}: q cannot be {}", op,
        name(q.dtype));
  check(kv_heads > 0 && heads % kv_heads == 0, "{}: {} query heads cannot share {} key heads", op, heads, kv_heads);
  check_heads(op, "q", q, {tokens, heads, q.shape[2]}, q.dtype);
  check_heads(op, "k", k, {tokens, kv_heads, q.shape[2]}, q.dtype);
  check_heads(op, "v", v, {tokens, kv_heads, v.shape[2]}, q.dtype);
  const DType stat = q.dtype == DType::f64 ? DType::f64 : DType::f32;
  check(lse.dtype == stat && lse.shape == Shape{heads, tokens} && lse.contiguous(),
        "{}: lse must be {} [{}, {}], not {}", op, name(stat), heads, tokens, lse);
  check(segment_start.dtype == DType::i32 && segment_start.shape == Shape{tokens} && segment_start.contiguous(),
        "{}: segment_start must be i32 [{}], not {}", op, tokens, segment_start);
  if (!segment_start.device.readable()) return;
  const auto* start = segment_start.as<std::int32_t>();
  for (std::int64_t t = 0; t < tokens; ++t) {
    check(start[t] == t || (t > 0 && start[t] == start[t - 1]),
          "{}: segment_start[{}] is {}; it must be {} or what the token before has", op, t, start[t], t);
  }
}

std::int64_t cpu_scratch_bytes(const AttentionShape& shape, int workers) {
  const std::int64_t longest = shape.longest_document > 0 ? shape.longest_document : shape.tokens;
  const attention::Extents extents{attention::round_up(longest, 32), shape.heads, shape.kv_heads,
                                   attention::round_up(shape.qk_dim, 32), attention::round_up(shape.v_dim, 32)};
  const std::int64_t reference = (shape.tokens + 1) * (shape.qk_dim + shape.v_dim + 1) * size_bytes(DType::f64);
  std::int64_t each = std::max(reference, attention::simd::worker_bytes(extents));
#if defined(__x86_64__)
  each = std::max(each, attention::amx::worker_bytes(extents));
#endif
  return Arena::footprint((shape.tokens + 1) * size_bytes(DType::i32)) + Arena::footprint(each) * workers + 4096;
}

/// On a device. cuDNN's row counts where the library is.
std::int64_t device_scratch_bytes(const AttentionShape& shape, [[maybe_unused]] DType dtype) {
  const std::int64_t own = attention::cuda::scratch_bytes(shape.tokens, shape.heads);
#if SHOESTRING_CUDNN
  if (dtype == DType::bf16 && attention::cudnn::library_fault().empty()) {
    return std::max(own, attention::cudnn::scratch_bytes(shape));
  }
#endif
  return own;
}

template <class Args>
void claim_scratch(const Args& args) {
  const std::int64_t tokens = args.q.shape[0];
  const std::int64_t heads = args.q.shape[1];
  AttentionShape shape{.tokens = tokens,
                       .heads = heads,
                       .kv_heads = args.k.shape[1],
                       .qk_dim = args.q.shape[2],
                       .v_dim = args.v.shape[2]};
  if (args.stream.device().kind == DeviceKind::cpu) {
    return args.scratch.claim(cpu_scratch_bytes(shape, args.stream.worker_count()));
  }
  for (std::size_t d = 1; d < args.document_starts.size(); ++d) {
    shape.longest_document =
        std::max<std::int64_t>(shape.longest_document, args.document_starts[d] - args.document_starts[d - 1]);
  }
  args.scratch.claim(device_scratch_bytes(shape, args.q.dtype));
}

}  // namespace

namespace attention {

Documents::Documents(const ConstTensorView& segment_start, Arena& scratch) {
  const std::int64_t tokens = segment_start.shape[0];
  starts_ = scratch.take(DType::i32, {tokens + 1}).as<std::int32_t>();
  const auto* start = segment_start.as<std::int32_t>();
  for (std::int64_t t = 0; t < tokens; ++t) {
    if (start[t] == t) starts_[count_++] = static_cast<std::int32_t>(t);
  }
  starts_[count_] = static_cast<std::int32_t>(tokens);
  for (std::int64_t i = 0; i < count_; ++i) longest_ = std::max(longest_, (*this)[i].tokens());
}

Extents padded_extents(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                       std::int64_t longest) {
  return {round_up(longest, 32), q.shape[1], k.shape[1], round_up(q.shape[2], 32), round_up(v.shape[2], 32)};
}

void each_with_worker(Workers& workers, std::int64_t items,
                      const std::function<void(int worker, std::int64_t item)>& body) {
  if (items <= 0) return;
  if (items == 1 || workers.count() == 1) {
    for (std::int64_t item = 0; item < items; ++item) body(0, item);
    return;
  }
  std::atomic<std::int64_t> next{0};
  workers.run([&](int worker) {
    for (std::int64_t item = next.fetch_add(1); item < items; item = next.fetch_add(1)) body(worker, item);
  });
}

}  // namespace attention

std::span<const Variant<AttentionArgs>> attention_forward_variants() {
  static constexpr std::array kVariants = std::to_array<Variant<AttentionArgs>>({
#if SHOESTRING_CUDNN
    {"cudnn", attention::cudnn::refuses, attention::cudnn::forward},
#endif
#if SHOESTRING_CUDA
        {"cuda", attention::cuda::refuses, attention::cuda::forward},
#endif
#if defined(__x86_64__)
        {"amx", attention::amx::refuses, attention::amx::forward},
#endif
        {"simd", attention::simd::refuses, attention::simd::forward},
        {"reference", needs_cpu<AttentionArgs>, attention::reference::forward},
  });
  return kVariants;
}

std::span<const Variant<AttentionBackwardArgs>> attention_backward_variants() {
  static constexpr std::array kVariants = std::to_array<Variant<AttentionBackwardArgs>>({
#if SHOESTRING_CUDNN
    {"cudnn", attention::cudnn::refuses, attention::cudnn::backward},
#endif
#if SHOESTRING_CUDA
        {"cuda", attention::cuda::refuses, attention::cuda::backward},
#endif
#if defined(__x86_64__)
        {"amx", attention::amx::refuses, attention::amx::backward},
#endif
        {"simd", attention::simd::refuses, attention::simd::backward},
        {"reference", needs_cpu<AttentionBackwardArgs>, attention::reference::backward},
  });
  return kVariants;
}

void attention_forward(const AttentionArgs& args) {
  constexpr std::string_view kOp = "attention_forward";
  check_inputs(kOp, args.scale, args.q, args.k, args.v, args.lse, args.segment_start);
  check_documents(kOp, args.document_starts, args.q.shape[0]);
  check_heads(kOp, "o", args.o, {args.q.shape[0], args.q.shape[1], args.v.shape[2]}, args.q.dtype);
  if (args.q.elements() == 0) return;
  if (args.stream.dry()) return claim_scratch(args);
  choose(kOp, attention_forward_variants(), args).run(args);
}

void attention_backward(const AttentionBackwardArgs& args) {
  constexpr std::string_view kOp = "attention_backward";
  check_inputs(kOp, args.scale, args.q, args.k, args.v, args.lse, args.segment_start);
  const Shape outputs{args.q.shape[0], args.q.shape[1], args.v.shape[2]};
  check_documents(kOp, args.document_starts, args.q.shape[0]);
  check_heads(kOp, "o", args.o, outputs, args.q.dtype);
  check_heads(kOp, "d_o", args.d_o, outputs, args.q.dtype);
  check_heads(kOp, "dq", args.dq, args.q.shape, args.q.dtype);
  check_heads(kOp, "dk", args.dk, args.k.shape, args.q.dtype);
  check_heads(kOp, "dv", args.dv, args.v.shape, args.q.dtype);
  if (args.q.elements() == 0) return;
  if (args.stream.dry()) return claim_scratch(args);
  choose(kOp, attention_backward_variants(), args).run(args);
}

std::int64_t attention_scratch_bytes(const AttentionShape& shape, int workers) {
  return std::max(cpu_scratch_bytes(shape, workers), device_scratch_bytes(shape, DType::bf16));
}

}  // namespace shoestring
