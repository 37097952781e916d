#include "kernels/router_load.h"

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/element.h"

namespace shoestring {

void router::check_sequences(ConstTensorView load, ConstTensorView starts, ConstTensorView scores) {
  check(starts.shape.rank() == 1 && starts.shape[0] >= 1 && starts.dtype == DType::i32 && starts.contiguous(),
        "router: sequence_starts are {}", starts);
  const std::int64_t sequences = starts.shape[0] - 1;
  check(load.shape == Shape{sequences, scores.shape[1]} && load.dtype == scores.dtype && load.contiguous(),
        "router: load is {} for {} sequences of scores {}", load, sequences, scores);
  if (!starts.device.readable()) return;
  const std::int32_t* start = starts.as<std::int32_t>();
  check(start[0] == 0 && start[sequences] == scores.shape[0] && std::is_sorted(start, start + sequences + 1),
        "router: sequences from {} to {} over {} tokens", start[0], start[sequences], scores.shape[0]);
}

namespace {

// One sequence's share of the balance loss; writes its f.
template <class Real>
double sequence_loss(const RouterBalanceArgs& args, std::int64_t sequence) {
  const std::int64_t experts = args.scores.shape[1];
  const std::int64_t k = args.indices.shape[1];
  const std::int64_t begin = args.sequence_starts.as<std::int32_t>()[sequence];
  const std::int64_t end = args.sequence_starts.as<std::int32_t>()[sequence + 1];
  Real* load = args.load.as<Real>() + sequence * experts;
  std::fill(load, load + experts, Real{0});
  if (begin == end) return 0;
  const std::int32_t* indices = args.indices.as<std::int32_t>();
  for (std::int64_t slot = begin * k; slot < end * k; ++slot) load[indices[slot]] += 1;
  const double unit = static_cast<double>(experts) / static_cast<double>(k * (end - begin));
  for (std::int64_t e = 0; e < experts; ++e) load[e] = static_cast<Real>(unit * widened(load[e]));
  double total = 0;  // sum over tokens of sum_e f_e s'_e = T sum_e f_e P_e
  for (std::int64_t token = begin; token < end; ++token) {
    const Real* scores = args.scores.as<Real>() + token * experts;
    double sum = 0;
    double weighted = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      sum += widened(scores[e]);
      weighted += widened(load[e]) * widened(scores[e]);
    }
    if (sum > 0) total += weighted / sum;
  }
  return static_cast<double>(args.alpha) * total;
}

void balance_on_cpu(const RouterBalanceArgs& args) {
  const auto loss_of = args.scores.dtype == DType::f64 ? sequence_loss<double> : sequence_loss<float>;
  std::vector<double> losses(static_cast<std::size_t>(args.load.shape[0]));
  args.stream.workers().each(args.load.shape[0], [&](std::int64_t sequence) {
    losses[static_cast<std::size_t>(sequence)] = loss_of(args, sequence);
  });
  double total = 0;
  for (const double loss : losses) total += loss;
  *args.loss.as<double>() += total;
}

void count_on_cpu(const RouterCountArgs& args) {
  auto* count = args.counts.as<std::int64_t>();
  for (std::int64_t slot = 0; slot < args.indices.elements(); ++slot) {
    const std::int32_t expert = args.indices.as<std::int32_t>()[slot];
    check(expert < args.counts.elements(), "router: expert {} of {}", expert, args.counts.elements());
    if (expert >= 0) ++count[expert];
  }
}

void update_bias_on_cpu(const RouterBiasArgs& args) {
  const std::int64_t experts = args.counts.elements();
  const auto* count = args.counts.as<std::int64_t>();
  std::int64_t total = 0;
  for (std::int64_t e = 0; e < experts; ++e) total += count[e];
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t error = total - count[e] * experts;  // experts * (mean - count)
    const float move = error > 0 ? args.speed : error < 0 ? -args.speed : 0.0f;
    if (args.bias.dtype == DType::f64) {
      args.bias.as<double>()[e] += static_cast<double>(move);
    } else {
      args.bias.as<float>()[e] += move;
    }
  }
}

constexpr std::array kBalance = std::to_array<Variant<RouterBalanceArgs>>({
#if SHOESTRING_CUDA
  {"cuda", router::cuda::refuses, router::cuda::balance},
#endif
      {"cpu", needs_cpu<RouterBalanceArgs>, balance_on_cpu},
});
constexpr std::array kCount = std::to_array<Variant<RouterCountArgs>>({
#if SHOESTRING_CUDA
  {"cuda", router::cuda::refuses, router::cuda::count},
#endif
      {"cpu", needs_cpu<RouterCountArgs>, count_on_cpu},
});
constexpr std::array kBias = std::to_array<Variant<RouterBiasArgs>>({
#if SHOESTRING_CUDA
  {"cuda", router::cuda::refuses, router::cuda::update_bias},
#endif
      {"cpu", needs_cpu<RouterBiasArgs>, update_bias_on_cpu},
});

}  // namespace

void router_balance_loss(const RouterBalanceArgs& args) {
  if (args.scores.shape[0] == 0) return;
  check(args.indices.shape.rank() == 2 && args.indices.shape[0] == args.scores.shape[0] &&
            args.indices.dtype == DType::i32 && args.indices.contiguous() && args.scores.contiguous(),
        "router: indices are {} for scores {}", args.indices, args.scores);
  router::check_sequences(args.load, args.sequence_starts, args.scores);
  check(
      args.loss.dtype == DType::f64 && args.loss.elements() == 1 &&
          (args.losses.empty() || (args.losses.dtype == DType::f64 && args.losses.shape == Shape{args.load.shape[0]})),
      "router: the balance loss goes into {}, {}", args.loss, args.losses);
  choose("router_balance_loss", kBalance, args).run(args);
}

void router_count_load(TensorView counts, ConstTensorView indices, Stream& stream) {
  check(counts.dtype == DType::i64 && counts.contiguous() && indices.dtype == DType::i32 && indices.contiguous(),
        "router: counts are {}, indices {}", counts, indices);
  if (indices.elements() == 0) return;
  const RouterCountArgs args{counts, indices, stream};
  choose("router_count_load", kCount, args).run(args);
}

void router_update_bias(TensorView bias, ConstTensorView counts, float speed, Stream& stream) {
  check(counts.dtype == DType::i64 && counts.contiguous() && bias.elements() == counts.elements() &&
            bias.contiguous() && (bias.dtype == DType::f32 || bias.dtype == DType::f64),
        "router: bias is {}, counts {}", bias, counts);
  const RouterBiasArgs args{bias, counts, speed, stream};
  choose("router_update_bias", kBias, args).run(args);
}

double router_max_violation(ConstTensorView counts) {
  check(counts.dtype == DType::i64 && counts.contiguous(), "router: counts are {}", counts);
  std::int64_t total = 0;
  std::int64_t most = 0;
  for (std::int64_t e = 0; e < counts.elements(); ++e) {
    total += counts.as<std::int64_t>()[e];
    most = std::max(most, counts.as<std::int64_t>()[e]);
  }
  if (total == 0) return 0;
  return static_cast<double>(most) * static_cast<double>(counts.elements()) / static_cast<double>(total) - 1;
}

std::span<const Variant<RouterBalanceArgs>> router_balance_loss_variants() { return kBalance; }
std::span<const Variant<RouterCountArgs>> router_count_load_variants() { return kCount; }
std::span<const Variant<RouterBiasArgs>> router_update_bias_variants() { return kBias; }

}  // namespace shoestring
