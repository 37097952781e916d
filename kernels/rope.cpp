#include "kernels/rope.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"

namespace shoestring {
namespace {

double yarn_magnitude(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

/// The pair whose wave turns `rotations` times within the original context.
double yarn_pair(const RopeSettings& settings, double rotations) {
  const double positions = static_cast<double>(settings.original_max_positions);
  return static_cast<double>(settings.dim) * std::log(positions / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(settings.theta));
}

void scale_yarn(const RopeSettings& settings, std::vector<double>& frequencies) {
  const double low = std::max(std::floor(yarn_pair(settings, settings.beta_fast)), 0.0);
  double high = std::min(std::ceil(yarn_pair(settings, settings.beta_slow)), static_cast<double>(settings.dim - 1));
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / settings.factor * ramp + frequencies[i] * (1.0 - ramp);
  }
}

void scale_llama3(const RopeSettings& settings, std::vector<double>& frequencies) {
  const double original = static_cast<double>(settings.original_max_positions);
  const double longest = original / settings.low_freq_factor;
  const double shortest = original / settings.high_freq_factor;
  for (double& frequency : frequencies) {
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    if (wavelength < shortest) continue;
    if (wavelength > longest) {
      frequency /= settings.factor;
      continue;
    }
    const double smooth =
        (original / wavelength - settings.low_freq_factor) / (settings.high_freq_factor - settings.low_freq_factor);
    frequency = (1.0 - smooth) * frequency / settings.factor + smooth * frequency;
  }
}

void check_settings(const RopeSettings& s) {
  check(s.dim > 0 && s.dim % 2 == 0, "rope: dim must be even and positive, not {}", s.dim);
  check(s.theta > 1.0, "rope: theta must be above 1, not {}", s.theta);
  if (s.scaling == RopeScaling::none) return;
  check(s.factor >= 1.0, "rope: factor must be at least 1, not {}", s.factor);
  check(s.original_max_positions > 0, "rope: scaling needs original_max_positions");
  if (s.scaling == RopeScaling::llama3) {
    check(s.low_freq_factor > 0.0 && s.high_freq_factor > s.low_freq_factor,
          "rope: llama3 needs 0 < low_freq_factor < high_freq_factor, not {} and {}", s.low_freq_factor,
          s.high_freq_factor);
  } else {
    check(s.beta_slow > 0.0 && s.beta_fast > s.beta_slow, "rope: yarn needs 0 < beta_slow < beta_fast, not {} and {}",
          s.beta_slow, s.beta_fast);
  }
}

template <class T>
void fill_table(const std::vector<double>& frequencies, double scale, Tensor& cosines, Tensor& sines) {
  const std::int64_t positions = cosines.shape()[0];
  std::int64_t at = 0;
  for (std::int64_t position = 0; position < positions; ++position) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      cosines.as<T>()[at] = static_cast<T>(std::cos(angle) * scale);
      sines.as<T>()[at] = static_cast<T>(std::sin(angle) * scale);
      ++at;
    }
  }
}

void check_args(const RopeArgs& args) {
  const TensorView& x = args.x;
  check(x.shape.rank() == 3, "rope: x must be [tokens, heads, dim], not {}", x);
  check(x.shape[2] == args.table.dim(), "rope: x is {}, the table rotates {} elements", x, args.table.dim());
  check(x.strides[2] == 1, "rope: the last dim of x must be contiguous");
  const DType table = x.dtype == DType::f64 ? DType::f64 : DType::f32;
  check(x.dtype == DType::f64 || x.dtype == DType::f32 || x.dtype == DType::bf16, "rope: x cannot be {}",
        name(x.dtype));
  check(args.table.cosines.dtype() == table, "rope: x of {} needs a table of {}", name(x.dtype), name(table));
  check(args.positions.dtype == DType::i32 && args.positions.shape == Shape{x.shape[0]} && args.positions.contiguous(),
        "rope: positions must be i32 [{}], not {}", x.shape[0], args.positions);
  if (!args.positions.device.readable()) return;
  const auto* positions = args.positions.as<std::int32_t>();
  for (std::int64_t token = 0; token < x.shape[0]; ++token) {
    check(positions[token] >= 0 && positions[token] < args.table.max_positions(),
          "rope: token {} has position {}, the table ends at {}", token, positions[token], args.table.max_positions());
  }
}

}  // namespace

std::vector<double> rope_frequencies(const RopeSettings& settings) {
  check_settings(settings);
  std::vector<double> frequencies(static_cast<std::size_t>(settings.dim / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = 1.0 / std::pow(settings.theta, static_cast<double>(2 * i) / static_cast<double>(settings.dim));
  }
  if (settings.scaling == RopeScaling::yarn) scale_yarn(settings, frequencies);
  if (settings.scaling == RopeScaling::llama3) scale_llama3(settings, frequencies);
  return frequencies;
}

double rope_table_scale(const RopeSettings& settings) {
  if (settings.scaling != RopeScaling::yarn) return 1.0;
  if (settings.mscale != 0.0 && settings.mscale_all_dim != 0.0) {
    return yarn_magnitude(settings.factor, settings.mscale) / yarn_magnitude(settings.factor, settings.mscale_all_dim);
  }
  return yarn_magnitude(settings.factor, 1.0);
}

double rope_attention_scale(const RopeSettings& settings) {
  if (settings.scaling != RopeScaling::yarn || settings.mscale_all_dim == 0.0) return 1.0;
  const double magnitude = yarn_magnitude(settings.factor, settings.mscale_all_dim);
  return magnitude * magnitude;
}

RopeTable make_rope_table(const RopeSettings& settings, std::int64_t max_positions, DType dtype) {
  check(dtype == DType::f32 || dtype == DType::f64, "rope: a table of {} makes no sense", name(dtype));
  check(max_positions > 0, "rope: a table needs positions, not {}", max_positions);
  const std::vector<double> frequencies = rope_frequencies(settings);
  const Shape shape{max_positions, settings.dim / 2};
  RopeTable table{Tensor(dtype, shape), Tensor(dtype, shape), settings.style};
  const double scale = rope_table_scale(settings);
  if (dtype == DType::f64) {
    fill_table<double>(frequencies, scale, table.cosines, table.sines);
  } else {
    fill_table<float>(frequencies, scale, table.cosines, table.sines);
  }
  return table;
}

namespace rotary::reference {
namespace {

template <class T, class Math>
void rotate_heads(const RopeArgs& args) {
  const std::int64_t pairs = args.table.dim() / 2;
  const bool interleaved = args.table.style == RopeStyle::interleaved;
  const std::int64_t step = interleaved ? 2 : 1;
  const std::int64_t partner = interleaved ? 1 : pairs;
  args.stream.workers().split(args.x.shape[0], 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t token = begin; token < end; ++token) {
      const std::int64_t position = args.positions.as<std::int32_t>()[token];
      const Math* cosines = args.table.cosines.as<Math>() + position * pairs;
      const Math* sines = args.table.sines.as<Math>() + position * pairs;
      for (std::int64_t head = 0; head < args.x.shape[1]; ++head) {
        T* x = args.x.as<T>() + token * args.x.strides[0] + head * args.x.strides[1];
        for (std::int64_t i = 0; i < pairs; ++i) {
          const Math a = static_cast<Math>(x[i * step]);
          const Math b = static_cast<Math>(x[i * step + partner]);
          const Math sine = args.inverse ? -sines[i] : sines[i];
          x[i * step] = T(std::fma(a, cosines[i], -(b * sine)));
          x[i * step + partner] = T(std::fma(b, cosines[i], a * sine));
        }
      }
    }
  });
}

}  // namespace

void rotate(const RopeArgs& args) {
  switch (args.x.dtype) {
    case DType::f64: return rotate_heads<double, double>(args);
    case DType::f32: return rotate_heads<float, float>(args);
    default: return rotate_heads<BFloat16, float>(args);
  }
}

}  // namespace rotary::reference

std::span<const Variant<RopeArgs>> rope_variants() {
  static constexpr std::array kVariants = std::to_array<Variant<RopeArgs>>({
#if SHOESTRING_CUDA
    {"cuda", rotary::cuda::refuses, rotary::cuda::rotate},
#endif
#if defined(__x86_64__)
#endif
        {"simd", rotary::simd::refuses, rotary::simd::rotate},
        {"reference", needs_cpu<RopeArgs>, rotary::reference::rotate},
  });
  return kVariants;
}

void rope(const RopeArgs& args) {
  check_args(args);
  if (args.x.elements() == 0) return;
  choose("rope", rope_variants(), args).run(args);
}

}  // namespace shoestring
