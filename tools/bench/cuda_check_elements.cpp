// Ops that work element by element or row by row on a CUDA device: their results have the bits of the CPU's rows.
#include <cmath>
#include <functional>
#include <vector>

#include "kernels/adamw.h"
#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/embedding.h"
#include "kernels/fill.h"
#include "kernels/latent_key.h"
#include "kernels/permute.h"
#include "kernels/reduce.h"
#include "kernels/rope.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

void check_rope(Bench& bench, DType dtype, RopeStyle style, bool inverse) {
  const RopeTable table = make_rope_table({.dim = 64, .style = style}, 50);
  Tensors tensors;
  tensors.push_back(numbers(dtype, {33, 5 * 64}, 11));
  tensors.push_back(integers({33}, 50, 3));
  const auto op = [&](Tensors& t, Stream& stream) {
    RopeTable there{Tensor(DType::f32, table.cosines.shape(), stream.device()),
                    Tensor(DType::f32, table.sines.shape(), stream.device()), style};
    copy(there.cosines, table.cosines, stream);
    copy(there.sines, table.sines, stream);
    TensorView x = t[0].view().slice(1, 64, 3 * 64);  // heads 1 to 3 of 5
    x.strides = {x.strides[0], 64, 1};
    x.shape = {33, 3, 64};
    rope({.x = x, .positions = t[1], .table = there, .inverse = inverse, .stream = stream});
    stream.synchronize();
  };
  check_bits(bench,
             fmt::format("rope {} {}{}", name(dtype), style == RopeStyle::interleaved ? "interleaved" : "half split",
                         inverse ? " inverse" : ""),
             tensors, op);
}

void check_embedding(Bench& bench, DType table, DType rows, std::int64_t tokens) {
  constexpr std::int64_t kHidden = 300;
  Tensors tensors;
  tensors.push_back(numbers(table, {40, kHidden}, 12));
  tensors.push_back(numbers(rows, {tokens, kHidden}, 13));
  tensors.push_back(integers({tokens}, 37, 5));
  check_bits(
      bench, fmt::format("embedding {} from {} [{}]", name(rows), name(table), tokens), tensors,
      [](Tensors& t, Stream& stream) { embedding_forward({.y = t[1], .table = t[0], .ids = t[2], .stream = stream}); });
  if (table != DType::f32) return;
  check_bits(bench, fmt::format("embedding gradient {} [{}]", name(rows), tokens), tensors,
             [](Tensors& t, Stream& stream) {
               embedding_backward({.dtable = t[0], .dy = t[1], .ids = t[2], .stream = stream});
             });
}

void check_permute(Bench& bench, DType dtype, bool weighted) {
  constexpr std::int64_t kTokens = 37, kChoices = 3, kHidden = 290;
  Tensor indices = integers({kTokens, kChoices}, 9, 4);  // of 7 experts: two are another rank's
  PermutationStorage plan(kTokens, kChoices, 7);
  plan_permutation(plan.view(), indices, bench.cpu);
  const Permutation p = plan.view();
  const std::int64_t rows = kTokens * kChoices;
  Tensors tensors;
  tensors.push_back(numbers(dtype, {kTokens, kHidden}, 14));
  tensors.push_back(numbers(dtype, {rows, kHidden}, 15));
  tensors.push_back(numbers(DType::f32, {kTokens, kChoices}, 16));
  for (const TensorView& part : {p.row_of_slot, p.slot_of_row}) {
    Tensor& copied = tensors.emplace_back(DType::i32, part.shape);
    copy(copied, part, bench.cpu);
  }
  const auto with = [&](Tensors& t) { return Permutation{p.counts, p.offsets, t[3], t[4]}; };
  const std::string tail = fmt::format(" {}{}", name(dtype), weighted ? " weighted" : "");
  const auto weights = [&](Tensors& t) { return weighted ? ConstTensorView(t[2]) : ConstTensorView{}; };
  check_bits(bench, "gather_rows" + tail, tensors, [&](Tensors& t, Stream& stream) {
    gather_rows({.xp = t[1], .x = t[0], .plan = with(t), .weights = weights(t), .stream = stream});
  });
  for (const bool accumulate : {false, true}) {
    check_bits(bench, "combine_rows" + tail + (accumulate ? " accumulating" : ""), tensors,
               [&](Tensors& t, Stream& stream) {
                 combine_rows({.y = t[0],
                               .yp = t[1],
                               .plan = with(t),
                               .weights = weights(t),
                               .accumulate = accumulate,
                               .stream = stream});
               });
  }
  if (weighted) return;
  bench.part("permute_weight_gradient", [&] {
    Tensor expected(DType::f32, {kTokens, kChoices});
    permute_weight_gradient({.dweights = expected, .dy = tensors[0], .yp = tensors[1], .plan = p, .stream = bench.cpu});
    Tensor ours(DType::f32, {kTokens, kChoices}, bench.device());
    const Tensor dy = bench.to_device(tensors[0]), yp = bench.to_device(tensors[1]);
    Tensor row_of_slot = bench.to_device(tensors[3]), slot_of_row = bench.to_device(tensors[4]);
    permute_weight_gradient({.dweights = ours,
                             .dy = dy,
                             .yp = yp,
                             .plan = {p.counts, p.offsets, row_of_slot, slot_of_row},
                             .stream = bench.cuda});
    std::vector<double> terms(static_cast<std::size_t>(rows));
    for (std::int64_t slot = 0; slot < rows; ++slot) {
      const std::int64_t row = p.row_of_slot.as<std::int32_t>()[slot];
      for (std::int64_t j = 0; row >= 0 && j < kHidden; ++j) {
        terms[static_cast<std::size_t>(slot)] +=
            std::abs(value(tensors[0], slot / kChoices * kHidden + j) * value(tensors[1], row * kHidden + j));
      }
    }
    const double worst = worst_error(bench.to_host(ours), expected, sum_error(kHidden), terms);
    bench.verdict("permute_weight_gradient" + tail, worst <= 1, fmt::format("worst error {:.3f} of its bound", worst));
  });
}

void check_copied_rows(Bench& bench, DType dtype) {  // any format travels without weights
  Tensors tensors;
  tensors.emplace_back(dtype, Shape{20, 65});
  tensors.push_back(poisoned(dtype, {20, 65}));
  for (std::int64_t i = 0; i < tensors[0].bytes(); ++i) tensors[0].as<std::uint8_t>()[i] = static_cast<std::uint8_t>(i);
  PermutationStorage plan(20, 1, 4);
  const Tensor indices = integers({20, 1}, 5, 3);
  plan_permutation(plan.view(), indices, bench.cpu);
  check_bits(bench, fmt::format("gather_rows of {}", name(dtype)), tensors, [&](Tensors& t, Stream& stream) {
    const Permutation p = plan.view();
    Tensor row_of_slot(DType::i32, {20}, stream.device()), slot_of_row(DType::i32, {20}, stream.device());
    copy(row_of_slot, p.row_of_slot, stream);
    copy(slot_of_row, p.slot_of_row, stream);
    gather_rows({.xp = t[1], .x = t[0], .plan = {p.counts, p.offsets, row_of_slot, slot_of_row}, .stream = stream});
    stream.synchronize();
  });
}

void check_updates(Bench& bench, DType narrow) {
  constexpr std::int64_t kCount = 1029;
  Tensors tensors;
  tensors.push_back(numbers(DType::f32, {kCount}, 17));
  tensors.push_back(numbers(narrow, {kCount}, 18));
  tensors.push_back(numbers(narrow, {kCount}, 19));
  tensors.push_back(numbers(DType::bf16, {kCount}, 20));
  tensors.push_back(numbers(DType::f32, {kCount}, 21));
  for (std::int64_t i = 0; i < kCount; ++i) {  // second moments are not negative
    if (narrow == DType::f32) tensors[2].as<float>()[i] = std::abs(tensors[2].as<float>()[i]);
    if (narrow == DType::bf16) tensors[2].as<BFloat16>()[i].bits &= 0x7FFF;
  }
  check_bits(bench, fmt::format("adamw, moments {}", name(narrow)), tensors, [](Tensors& t, Stream& stream) {
    adamw_step({.parameter = t[0],
                .first_moment = t[1],
                .second_moment = t[2],
                .copy = t[3],
                .gradient = t[4],
                .gradient_scale = 0.3,
                .learning_rate = 1e-2,
                .beta1 = 0.9,
                .beta2 = 0.95,
                .eps = 1e-8,
                .weight_decay = 0.1,
                .step = 3,
                .stream = stream});
  });
  check_bits(bench, fmt::format("axpby {}", name(narrow)), tensors, [](Tensors& t, Stream& stream) {
    axpby(t[1], 0.7, t[0], -1.3, t[3], stream);
    axpby(t[3], 0.7, t[2], 0.1, t[4], stream);
    scale(t[2], 3.7, t[0], stream);
  });
}

// Many spans, more than a launch takes, one of them empty and two of another kind.
void check_many_updates(Bench& bench) {
  Tensors tensors;
  for (std::uint32_t i = 0; i < 50; ++i) {
    const std::int64_t count = i == 3 ? 0 : i == 7 ? 9000 : 5 + i;
    for (std::uint32_t part = 0; part < 4; ++part) tensors.push_back(numbers(DType::f32, {count}, 300 + 4 * i + part));
    for (std::int64_t j = 0; j < count; ++j) {
      float& second = tensors[4 * i + 2].as<float>()[j];
      second = std::abs(second);
    }
  }
  check_bits(bench, "adamw of 50 spans", tensors, [](Tensors& t, Stream& stream) {
    std::vector<AdamwArgs> all;
    for (std::size_t i = 0; i < t.size(); i += 4) {
      all.push_back({.parameter = t[i],
                     .first_moment = t[i + 1],
                     .second_moment = t[i + 2],
                     .gradient = t[i + 3],
                     .gradient_scale = 0.3,
                     .learning_rate = 1e-2,
                     .beta1 = 0.9,
                     .beta2 = i == 80 || i == 84 ? 0.9 : 0.95,
                     .eps = 1e-8,
                     .weight_decay = i % 8 == 0 ? 0.1 : 0.0,
                     .step = 3,
                     .stream = stream});
    }
    adamw_steps(all);
  });
}

void check_reductions(Bench& bench, DType dtype, std::int64_t count) {
  Tensors tensors;
  tensors.push_back(numbers(dtype, {count}, 22));
  for (int i = 0; i < 3; ++i) tensors.emplace_back(DType::f64, Shape{1});
  tensors.emplace_back(dtype, Shape{count});
  check_bits(bench, fmt::format("reduce, normalise {} [{}]", name(dtype), count), tensors,
             [](Tensors& t, Stream& stream) {
               Tensor partials(DType::f64, {reduce::kMaxBlocks}, stream.device());
               for (const auto& [to, kind] : {std::pair{1, ReduceKind::sum}, std::pair{2, ReduceKind::sum_of_squares},
                                              std::pair{3, ReduceKind::max_abs}}) {
                 reduce_into(t[static_cast<std::size_t>(to)], partials, kind, t[0], stream);
               }
               normalise(t[4], t[0], t[2], 1e-7, stream);
               stream.synchronize();
             });
  if (count < 3) return;
  tensors[0].as<std::uint16_t>()[(count - 1) * size_bytes(dtype) / 2 + size_bytes(dtype) / 2 - 1] = 0x7FC0;  // a NaN
  bench.part("max_abs of a NaN", [&] {
    const Tensor there = bench.to_device(tensors[0]);
    bench.verdict("max_abs of a NaN", !all_finite(there, bench.cuda), "it was lost");
  });
}

void check_fill(Bench& bench) {
  Tensors tensors;
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32}) {
    tensors.emplace_back(dtype, Shape{3, 301});
  }
  check_bits(bench, "fill", tensors, [](Tensors& t, Stream& stream) {
    for (Tensor& tensor : t) fill(tensor.view().slice(0, 1, 1), -3.0, stream);
  });
}

void check_latent_key(Bench& bench, DType dtype) {
  constexpr std::int64_t kTokens = 9, kHeads = 5, kOwn = 33, kShared = 18;
  Tensors tensors;
  tensors.push_back(numbers(dtype, {kTokens, kHeads, kOwn + kShared}, 23));
  tensors.push_back(numbers(dtype, {kTokens, kHeads, kOwn + 7}, 24));
  tensors.push_back(numbers(dtype, {kTokens, kShared + 5}, 25));
  const auto own = [](Tensors& t) { return t[1].view().slice(2, 3, kOwn); };
  const auto shared = [](Tensors& t) { return t[2].view().slice(1, 5, kShared); };
  check_bits(bench, fmt::format("latent_key {}", name(dtype)), tensors, [&](Tensors& t, Stream& stream) {
    latent_key({.k = t[0], .own = own(t), .shared = shared(t), .stream = stream});
  });
  check_bits(bench, fmt::format("latent_key gradient {}", name(dtype)), tensors, [&](Tensors& t, Stream& stream) {
    latent_key_gradient({.down = own(t), .dshared = shared(t), .dk = t[0], .stream = stream});
  });
}

}  // namespace

void check_elements(Bench& bench) {
  check_fill(bench);
  check_many_updates(bench);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const RopeStyle style : {RopeStyle::interleaved, RopeStyle::half_split}) {
      for (const bool inverse : {false, true}) check_rope(bench, dtype, style, inverse);
    }
    for (const DType rows : {DType::f32, DType::bf16}) {
      check_embedding(bench, dtype, rows, 1);
      check_embedding(bench, dtype, rows, 600);
    }
    for (const bool weighted : {false, true}) check_permute(bench, dtype, weighted);
    check_updates(bench, dtype);
    check_latent_key(bench, dtype);
    for (const std::int64_t count : {1, 33, 4097, 12289, 30000}) check_reductions(bench, dtype, count);
  }
  for (const DType dtype : {DType::e4m3, DType::i64}) check_copied_rows(bench, dtype);
}

}  // namespace shoestring::cuda_compare
