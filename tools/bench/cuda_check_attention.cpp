// Attention on a CUDA device against double, row by row, over documents of several lengths, and its independence of the
// batch.
#include <algorithm>
#include <cmath>

#include "kernels/attention.h"
#include "kernels/base/check.h"
#include "kernels/base/variant.h"
#include "kernels/reduce.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

struct Case {
  std::vector<std::int64_t> documents;  ///< lengths
  std::int64_t heads, kv_heads, qk_dim, v_dim;
};

std::int64_t tokens_of(const Case& c) {
  std::int64_t tokens = 0;
  for (const std::int64_t length : c.documents) tokens += length;
  return tokens;
}

std::vector<std::int32_t> document_starts(const Case& c) {
  std::vector<std::int32_t> starts{0};
  for (const std::int64_t length : c.documents) starts.push_back(starts.back() + static_cast<std::int32_t>(length));
  return starts;
}

Tensor starts_of(const Case& c) {
  Tensor starts(DType::i32, {tokens_of(c)});
  std::int64_t begin = 0;
  for (const std::int64_t length : c.documents) {
    std::fill_n(starts.as<std::int32_t>() + begin, length, static_cast<std::int32_t>(begin));
    begin += length;
  }
  return starts;
}

enum Part : std::size_t { kQ, kK, kV, kO, kLse, kDo, kDq, kDk, kDv, kStart };

/// Numbers small enough that the softmax is not one-hot.
Tensor moderate(DType dtype, const Shape& shape, std::uint32_t stream) {
  Tensor tensor = numbers(dtype, shape, stream);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    const double x = value(tensor, i);
    const auto small = static_cast<float>(std::copysign(std::log1p(std::abs(x)), x) * 0.7);
    if (dtype == DType::f32) tensor.as<float>()[i] = small;
    if (dtype == DType::bf16) tensor.as<BFloat16>()[i] = BFloat16(small);
  }
  return tensor;
}

Tensors inputs_of(const Case& c, DType dtype) {
  const std::int64_t t = tokens_of(c);
  Tensors tensors;
  tensors.push_back(moderate(dtype, {t, c.heads, c.qk_dim}, 41));
  tensors.push_back(moderate(dtype, {t, c.kv_heads, c.qk_dim}, 42));
  tensors.push_back(moderate(dtype, {t, c.kv_heads, c.v_dim}, 43));
  tensors.push_back(poisoned(dtype, {t, c.heads, c.v_dim}));
  tensors.push_back(poisoned(DType::f32, {c.heads, t}));
  tensors.push_back(moderate(dtype, {t, c.heads, c.v_dim}, 44));
  tensors.push_back(poisoned(dtype, {t, c.heads, c.qk_dim}));
  tensors.push_back(poisoned(dtype, {t, c.kv_heads, c.qk_dim}));
  tensors.push_back(poisoned(dtype, {t, c.kv_heads, c.v_dim}));
  tensors.push_back(starts_of(c));
  return tensors;
}

/// Holds both passes to a row.
class Pinned {
 public:
  explicit Pinned(std::string_view row) {
    pin_variant("attention_forward", row);
    pin_variant("attention_backward", row);
  }
  ~Pinned() {
    pin_variant("attention_forward", {});
    pin_variant("attention_backward", {});
  }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
};

/// Both passes of what `tensors` hold: on a device by `row`, or why it declines.
Op both_passes(const Case& c, std::string_view row) {
  return [starts = document_starts(c), row](Tensors& t, Stream& stream) {
    const AttentionShape shape{t[kQ].shape()[0], 0, t[kQ].shape()[1], t[kK].shape()[1], t[kQ].shape()[2],
                               t[kV].shape()[2]};
    Arena scratch(attention_scratch_bytes(shape, 1), stream.device());
    const double scale = 1 / std::sqrt(static_cast<double>(shape.qk_dim));
    {
      const Pinned pinned(stream.device().kind == DeviceKind::cuda ? row : std::string_view());
      attention_forward({t[kO], t[kLse], t[kQ], t[kK], t[kV], t[kStart], scale, scratch, stream, starts});
      attention_backward({t[kDq], t[kDk], t[kDv], t[kDo], t[kQ], t[kK], t[kV], t[kO], t[kLse], t[kStart], scale,
                          scratch, stream, starts});
    }
    stream.synchronize();
  };
}

double largest(const Tensor& t) {
  double most = 0;
  for (std::int64_t i = 0; i < t.view().elements(); ++i) most = std::max(most, std::abs(value(t, i)));
  return most;
}

/// Bounds by the largest terms. A score is a sum of qk_dim products, and its error is a relative one of every weight;
/// backward reads o rounded to its format, which `unit` is of. Tensor cores take weights in bf16: `rounded` of each.
std::vector<Close> bounds(const Case& c, const Tensors& t, double unit, double rounded = 0) {
  const double score = std::sqrt(static_cast<double>(c.qk_dim)) * largest(t[kQ]) * largest(t[kK]);
  const std::int64_t tokens = tokens_of(c);
  const double weight = 4 * sum_error(c.qk_dim) * score + 2 * sum_error(tokens);  // relative
  const double pair = static_cast<double>(c.v_dim) * largest(t[kDo]) * largest(t[kV]) /
                      std::sqrt(static_cast<double>(c.qk_dim));  // of d score, for a weight of one
  const std::int64_t group = c.heads / c.kv_heads;
  const double shifted = weight + unit;
  const double many = std::sqrt(static_cast<double>(tokens)) * static_cast<double>(group);  // queries of a key
  // Of the whole: o, weights and dS in bf16 are off by 2^-9 each, and a dS may be an eighth of what it is the
  // difference of. A document of one token has no dq and dk.
  const double whole = tokens == 1 ? 0 : std::max(4 * unit, 0x1p-17);
  return {{kO, "o", weight + rounded, {largest(t[kV])}, whole},
          {kLse, "lse", sum_error(c.qk_dim) + 4 * sum_error(tokens), {score + 1}},
          {kDq, "dq", shifted + rounded, {pair * largest(t[kK])}, whole},
          {kDk, "dk", shifted + rounded, {pair * largest(t[kQ]) * many}, whole},
          {kDv, "dv", weight + rounded, {largest(t[kDo]) * many}, whole}};
}

// What a document's tokens get must not depend on what lies before them.
void check_place(Bench& bench, DType dtype, std::string_view row) {
  const Case alone{{45}, 2, 1, 40, 24}, behind{{7, 45}, 2, 1, 40, 24};
  const std::string name_of = fmt::format("attention {} {} does not depend on its place", row, name(dtype));
  bench.part(name_of, [&] {
    Tensors late = inputs_of(behind, dtype);
    Tensors early = inputs_of(alone, dtype);
    for (const Part part : {kQ, kK, kV, kDo}) {
      const std::int64_t skipped = late[part].bytes() / 52 * 7;
      std::copy_n(late[part].as<char>() + skipped, early[part].bytes(), early[part].as<char>());
    }
    const Tensors a = result_of(both_passes(behind, row), late, bench.cuda),
                  b = result_of(both_passes(alone, row), early, bench.cuda);
    std::string detail;
    for (const Part part : {kO, kDq, kDk, kDv}) {
      const Tensor all = bench.to_host(a[part]), one = bench.to_host(b[part]);
      Tensor tail(dtype, one.shape());
      std::copy_n(all.as<char>() + all.bytes() / 52 * 7, tail.bytes(), tail.as<char>());
      detail += difference(tail, one);
    }
    bench.verdict(name_of, detail.empty(), detail);
  });
}

void check_own(Bench& bench) {
  const std::vector<Case> cases = {{{1}, 1, 1, 8, 8}, {{40, 1, 64, 31}, 4, 2, 33, 31}, {{70}, 2, 2, 96, 64}};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Case& c : cases) {
      const double unit = dtype == DType::bf16 ? 0x1p-8 : 0x1p-23;
      check_close(bench,
                  fmt::format("attention {} {} documents of {} tokens, {} heads of {}, {}", name(dtype),
                              c.documents.size(), tokens_of(c), c.heads, c.qk_dim, c.v_dim),
                  inputs_of(c, dtype), both_passes(c, "cuda"), [&](const Tensors& t) { return bounds(c, t, unit); });
    }
    check_place(bench, dtype, "cuda");
  }
  if (!bench.quick) {
    const Case wide{{129}, 2, 1, 192, 256};
    check_close(bench, "attention of 192 and 256 dims", inputs_of(wide, DType::bf16), both_passes(wide, "cuda"),
                [&](const Tensors& t) { return bounds(wide, t, 0x1p-8); });
  }
}

/// Documents of one length and of several, shared heads, MLA's dims, and more heads than a backward pass takes at once.
void check_cudnn(Bench& bench) {
  std::vector<Case> cases = {{{40, 1, 64, 31}, 4, 2, 64, 64}, {{70}, 2, 2, 192, 128}, {{130, 130}, 2, 1, 128, 128}};
  if (!bench.quick) {
    cases.push_back({{5, 3}, 160, 160, 64, 64});
    cases.push_back({{700, 3, 600, 40, 1}, 8, 2, 128, 128});
    cases.push_back({{1024}, 4, 4, 192, 128});
  }
  for (const Case& c : cases) {
    check_close(bench,
                fmt::format("attention by cuDNN, {} documents of {} tokens, {} heads sharing {} of {}, {}",
                            c.documents.size(), tokens_of(c), c.heads, c.kv_heads, c.qk_dim, c.v_dim),
                inputs_of(c, DType::bf16), both_passes(c, "cudnn"),
                [&](const Tensors& t) { return bounds(c, t, 0x1p-8, 0x1p-8); });
  }
  check_place(bench, DType::bf16, "cudnn");
}

}  // namespace

void check_attention(Bench& bench) {
  check_own(bench);
  for (const Variant<AttentionArgs>& row : attention_forward_variants()) {
    if (row.name == "cudnn") check_cudnn(bench);
  }
}

}  // namespace shoestring::cuda_compare
