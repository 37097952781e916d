#include "kernels/cached_attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cached_attention_variants.h"
#include "kernels/cpu_refusals.h"

namespace shoestring {
namespace attention {
namespace {

template <class Element>
void keep_rows_as(const CachedAttentionArgs& args) {
  const std::int64_t qk_dim = args.k.shape[2];
  const std::int64_t v_dim = args.v.shape[2];
  for (std::int64_t row = 0; row < args.k.shape[0]; ++row) {
    const std::int64_t slot = args.slots.as<std::int32_t>()[row];
    const std::int64_t position = args.positions.as<std::int32_t>()[row];
    for (std::int64_t head = 0; head < args.k.shape[1]; ++head) {
      const Element* k = args.k.as<Element>() + row * args.k.strides[0] + head * args.k.strides[1];
      Element* key = args.keys.as<Element>() + slot * args.keys.strides[0] + head * args.keys.strides[1] +
                     position / kCachedKeys * args.keys.strides[2] + position % kCachedKeys;
      for (std::int64_t i = 0; i < qk_dim; ++i) key[i * kCachedKeys] = k[i];
      const Element* v = args.v.as<Element>() + row * args.v.strides[0] + head * args.v.strides[1];
      std::copy_n(v, v_dim,
                  args.values.as<Element>() + slot * args.values.strides[0] + head * args.values.strides[1] +
                      position * args.values.strides[2]);
    }
  }
}

}  // namespace

void keep_rows(const CachedAttentionArgs& args) {
  switch (args.q.dtype) {
    case DType::f64: return keep_rows_as<double>(args);
    case DType::f32: return keep_rows_as<float>(args);
    default: return keep_rows_as<BFloat16>(args);
  }
}

CachedRuns::CachedRuns(const ConstTensorView& slots, Arena& scratch) {
  const std::int64_t rows = slots.shape[0];
  starts_ = scratch.take(DType::i32, {rows + 1}).as<std::int32_t>();
  const auto* slot = slots.as<std::int32_t>();
  for (std::int64_t row = 0; row < rows; ++row) {
    const bool goes_on = count_ > 0 && slot[row] == slot[row - 1] && row - starts_[count_ - 1] < kCachedRun;
    if (!goes_on) starts_[count_++] = static_cast<std::int32_t>(row);
  }
  starts_[count_] = static_cast<std::int32_t>(rows);
}

namespace reference {
namespace {

/// As attention_forward's reference, in its order, one query at a time in double.
template <class Element>
void cached_as(const CachedAttentionArgs& args) {
  const Arena::Scope scope(args.scratch);
  const std::int64_t rows = args.q.shape[0];
  const std::int64_t heads = args.q.shape[1];
  const std::int64_t qk_dim = args.q.shape[2];
  const std::int64_t v_dim = args.v.shape[2];
  const std::int64_t each = args.values.shape[2] + v_dim;
  Workers& workers = args.stream.workers();
  auto* buffers = args.scratch.take(DType::f64, {workers.count(), each}).as<double>();
  each_with_worker(workers, heads * rows, [&](int worker, std::int64_t item) {
    const std::int64_t head = item % heads;
    const std::int64_t row = item / heads;
    const std::int64_t kv_head = head / (heads / args.k.shape[1]);
    const std::int64_t slot = args.slots.as<std::int32_t>()[row];
    const std::int64_t last = args.positions.as<std::int32_t>()[row];
    const Element* q = args.q.as<Element>() + row * args.q.strides[0] + head * args.q.strides[1];
    const Element* keys = args.keys.as<Element>() + slot * args.keys.strides[0] + kv_head * args.keys.strides[1];
    const Element* values =
        args.values.as<Element>() + slot * args.values.strides[0] + kv_head * args.values.strides[1];
    double* scores = buffers + worker * each;
    double* sums = scores + args.values.shape[2];
    double highest = -std::numeric_limits<double>::infinity();
    for (std::int64_t s = 0; s <= last; ++s) {
      const Element* key = keys + s / kCachedKeys * args.keys.strides[2] + s % kCachedKeys;
      double product = 0;
      for (std::int64_t i = 0; i < qk_dim; ++i) {
        product += static_cast<double>(q[i]) * static_cast<double>(key[i * kCachedKeys]);
      }
      scores[s] = args.scale * product;
      highest = std::fmax(highest, scores[s]);
    }
    double total = 0;
    for (std::int64_t s = 0; s <= last; ++s) total += std::exp(scores[s] - highest);
    std::fill_n(sums, v_dim, 0.0);
    for (std::int64_t s = 0; s <= last; ++s) {
      const double factor = std::exp(scores[s] - highest) / total;
      const Element* value = values + s * args.values.strides[2];
      for (std::int64_t i = 0; i < v_dim; ++i) sums[i] += factor * static_cast<double>(value[i]);
    }
    Element* o = args.o.as<Element>() + row * args.o.strides[0] + head * args.o.strides[1];
    for (std::int64_t i = 0; i < v_dim; ++i) {
      if constexpr (std::is_same_v<Element, double>) {
        o[i] = sums[i];
      } else {
        o[i] = Element(static_cast<float>(sums[i]));
      }
    }
  });
}

void cached(const CachedAttentionArgs& args) {
  keep_rows(args);
  switch (args.q.dtype) {
    case DType::f64: return cached_as<double>(args);
    case DType::f32: return cached_as<float>(args);
    default: return cached_as<BFloat16>(args);
  }
}

}  // namespace
}  // namespace reference
}  // namespace attention

namespace {

constexpr std::array kVariants = std::to_array<Variant<CachedAttentionArgs>>({
    {"simd", attention::simd::refuses, attention::simd::cached},
    {"reference", needs_cpu<CachedAttentionArgs>, attention::reference::cached},
});

void check_view(std::string_view what, const ConstTensorView& view, const Shape& shape, DType dtype) {
  const int last = shape.rank() - 1;
  check(view.shape == shape && view.dtype == dtype && (view.strides[last] == 1 || view.elements() == 0),
        "cached_attention: {} must be {} {} with a contiguous last dim, not {}", what, name(dtype), shape, view);
}

void check_arguments(const CachedAttentionArgs& args) {
  const DType dtype = args.q.dtype;
  check(dtype == DType::f64 || dtype == DType::f32 || dtype == DType::bf16, "cached_attention: q cannot be {}",
        name(dtype));
  check(args.q.shape.rank() == 3 && args.k.shape.rank() == 3 && args.v.shape.rank() == 3,
        "cached_attention: q, k, v must be [rows, heads, dim], not {}, {}, {}", args.q, args.k, args.v);
  check(args.scale > 0, "cached_attention: scale must be positive, not {}", args.scale);
  const std::int64_t rows = args.q.shape[0];
  const std::int64_t heads = args.q.shape[1];
  const std::int64_t qk_dim = args.q.shape[2];
  const std::int64_t kv_heads = args.k.shape[1];
  const std::int64_t v_dim = args.v.shape[2];
  check(kv_heads > 0 && heads % kv_heads == 0, "cached_attention: {} query heads cannot share {} key heads", heads,
        kv_heads);
  check(args.keys.shape.rank() == 4, "cached_attention: keys are {}", args.keys);
  const std::int64_t slots = args.keys.shape[0];
  const std::int64_t blocks = args.keys.shape[2];
  check_view("o", args.o, {rows, heads, v_dim}, dtype);
  check_view("q", args.q, {rows, heads, qk_dim}, dtype);
  check_view("k", args.k, {rows, kv_heads, qk_dim}, dtype);
  check_view("v", args.v, {rows, kv_heads, v_dim}, dtype);
  check_view("keys", args.keys, {slots, kv_heads, blocks, qk_dim * kCachedKeys}, dtype);
  check_view("values", args.values, {slots, kv_heads, blocks * kCachedKeys, v_dim}, dtype);
  check_view("slots", args.slots, {rows}, DType::i32);
  check_view("positions", args.positions, {rows}, DType::i32);
  if (!args.q.device.readable()) return;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t slot = args.slots.as<std::int32_t>()[row];
    const std::int64_t position = args.positions.as<std::int32_t>()[row];
    check(slot >= 0 && slot < slots && position >= 0 && position < blocks * kCachedKeys,
          "cached_attention: row {} stands at {} of slot {}; there are {} slots of {}", row, position, slot, slots,
          blocks * kCachedKeys);
  }
}

}  // namespace

std::span<const Variant<CachedAttentionArgs>> cached_attention_variants() { return kVariants; }

void cached_attention(const CachedAttentionArgs& args) {
  check_arguments(args);
  if (args.q.elements() == 0) return;
  if (args.stream.dry()) {
    const std::int64_t capacity = args.keys.shape[2] * kCachedKeys;
    return args.scratch.claim(cached_attention_scratch_bytes(
        {args.q.shape[0], capacity, args.q.shape[1], args.k.shape[1], args.q.shape[2], args.v.shape[2]},
        args.stream.worker_count()));
  }
  choose("cached_attention", kVariants, args).run(args);
}

std::int64_t cached_attention_scratch_bytes(const CachedAttentionShape& shape, int workers) {
  const std::int64_t reference = (shape.capacity + shape.v_dim) * size_bytes(DType::f64);
  const std::int64_t each = std::max(reference, attention::simd::cached_worker_bytes(shape.qk_dim, shape.v_dim));
  return Arena::footprint((shape.rows + 1) * size_bytes(DType::i32)) + Arena::footprint(each) * workers;
}

}  // namespace shoestring
