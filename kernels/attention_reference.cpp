// Attention as its formula reads, in double, one query at a time.
#include <cmath>
#include <limits>

#include "kernels/attention_variants.h"
#include "kernels/base/workers.h"

namespace shoestring::attention::reference {
namespace {

template <class T>
T rounded(double value) {
  if constexpr (std::is_same_v<T, double>) {
    return value;
  } else {
    return T(static_cast<float>(value));
  }
}

template <class T>
const T* row(const ConstTensorView& view, std::int64_t token, std::int64_t head) {
  return view.as<T>() + token * view.strides[0] + head * view.strides[1];
}

template <class T>
T* row(const TensorView& view, std::int64_t token, std::int64_t head) {
  return view.as<T>() + token * view.strides[0] + head * view.strides[1];
}

template <class T>
double dot(const T* a, const T* b, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

/// to += factor * from
template <class T>
void add(double* to, const T* from, double factor, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] += factor * static_cast<double>(from[i]);
}

template <class T>
void write(T* to, const double* from, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = rounded<T>(from[i]);
}

template <class T, class Stat>
void forward_as(const AttentionArgs& args) {
  const Arena::Scope scope(args.scratch);
  const std::int64_t tokens = args.q.shape[0];
  const std::int64_t heads = args.q.shape[1];
  const std::int64_t v_dim = args.v.shape[2];
  Workers& workers = args.stream.workers();
  auto* buffers = args.scratch.take(DType::f64, {workers.count(), tokens + v_dim}).as<double>();
  each_with_worker(workers, heads * tokens, [&](int worker, std::int64_t item) {
    const std::int64_t head = item / tokens;
    const std::int64_t t = item % tokens;
    const std::int64_t kv_head = head / (heads / args.k.shape[1]);
    const std::int64_t first = args.segment_start.as<std::int32_t>()[t];
    double* scores = buffers + worker * (tokens + v_dim);
    double* sums = scores + tokens;
    double highest = -std::numeric_limits<double>::infinity();
    for (std::int64_t s = first; s <= t; ++s) {
      scores[s] = args.scale * dot(row<T>(args.q, t, head), row<T>(args.k, s, kv_head), args.q.shape[2]);
      highest = std::fmax(highest, scores[s]);
    }
    double total = 0;
    for (std::int64_t s = first; s <= t; ++s) total += std::exp(scores[s] - highest);
    for (std::int64_t i = 0; i < v_dim; ++i) sums[i] = 0;
    for (std::int64_t s = first; s <= t; ++s) {
      add(sums, row<T>(args.v, s, kv_head), std::exp(scores[s] - highest) / total, v_dim);
    }
    write(row<T>(args.o, t, head), sums, v_dim);
    args.lse.as<Stat>()[head * tokens + t] = static_cast<Stat>(highest + std::log(total));
  });
}

/// Gradients of one key head: dk, dv and dq of its query heads, summed in double in query order.
template <class T, class Stat>
void backward_head(const AttentionBackwardArgs& args, std::int64_t kv_head, double* dk, double* dv, double* dq) {
  const std::int64_t tokens = args.q.shape[0];
  const std::int64_t qk_dim = args.q.shape[2];
  const std::int64_t v_dim = args.v.shape[2];
  const std::int64_t group = args.q.shape[1] / args.k.shape[1];
  for (std::int64_t i = 0; i < tokens * qk_dim; ++i) dk[i] = 0;
  for (std::int64_t i = 0; i < tokens * v_dim; ++i) dv[i] = 0;
  for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      const T* q = row<T>(args.q, t, head);
      const T* d_o = row<T>(args.d_o, t, head);
      const double lse = static_cast<double>(args.lse.as<Stat>()[head * tokens + t]);
      const double delta = dot(d_o, row<T>(args.o, t, head), v_dim);
      for (std::int64_t i = 0; i < qk_dim; ++i) dq[i] = 0;
      for (std::int64_t s = args.segment_start.as<std::int32_t>()[t]; s <= t; ++s) {
        const T* k = row<T>(args.k, s, kv_head);
        const double p = std::exp(args.scale * dot(q, k, qk_dim) - lse);
        const double ds = args.scale * p * (dot(d_o, row<T>(args.v, s, kv_head), v_dim) - delta);
        add(dv + s * v_dim, d_o, p, v_dim);
        add(dk + s * qk_dim, q, ds, qk_dim);
        add(dq, k, ds, qk_dim);
      }
      write(row<T>(args.dq, t, head), dq, qk_dim);
    }
  }
  for (std::int64_t s = 0; s < tokens; ++s) {
    write(row<T>(args.dk, s, kv_head), dk + s * qk_dim, qk_dim);
    write(row<T>(args.dv, s, kv_head), dv + s * v_dim, v_dim);
  }
}

template <class T, class Stat>
void backward_as(const AttentionBackwardArgs& args) {
  const Arena::Scope scope(args.scratch);
  const std::int64_t tokens = args.q.shape[0];
  const std::int64_t qk_dim = args.q.shape[2];
  const std::int64_t v_dim = args.v.shape[2];
  Workers& workers = args.stream.workers();
  const std::int64_t each = tokens * (qk_dim + v_dim) + qk_dim;
  auto* buffers = args.scratch.take(DType::f64, {workers.count(), each}).as<double>();
  each_with_worker(workers, args.k.shape[1], [&](int worker, std::int64_t kv_head) {
    double* dk = buffers + worker * each;
    double* dv = dk + tokens * qk_dim;
    backward_head<T, Stat>(args, kv_head, dk, dv, dv + tokens * v_dim);
  });
}

}  // namespace

void forward(const AttentionArgs& args) {
  switch (args.q.dtype) {
    case DType::f64: return forward_as<double, double>(args);
    case DType::f32: return forward_as<float, float>(args);
    default: return forward_as<BFloat16, float>(args);
  }
}

void backward(const AttentionBackwardArgs& args) {
  switch (args.q.dtype) {
    case DType::f64: return backward_as<double, double>(args);
    case DType::f32: return backward_as<float, float>(args);
    default: return backward_as<BFloat16, float>(args);
  }
}

}  // namespace shoestring::attention::reference
