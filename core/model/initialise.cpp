#include "core/model/initialise.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "kernels/base/copy.h"
#include "kernels/base/random.h"
#include "kernels/base/workers.h"
#include "kernels/fill.h"

namespace shoestring {
namespace {

constexpr std::int64_t kGrain = 4096;
constexpr std::int64_t kPiece = std::int64_t{1} << 20;  // elements drawn in host memory at a time

/// FNV-1a, 64 bits.
std::uint64_t name_key(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

/// values = deviation times the normals from number `first` on, rounded to f32.
template <class Real>
void draw(const Random& random, double deviation, std::int64_t first, std::vector<Real>& values, Workers& workers) {
  workers.split(static_cast<std::int64_t>(values.size()), kGrain, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t i = from; i < to; ++i) {
      const double value = deviation * random.normal(static_cast<std::uint64_t>(first + i));
      values[static_cast<std::size_t>(i)] = static_cast<float>(value);
    }
  });
}

template <class Real>
void draw_slice(const Random& random, double deviation, TensorView target, Workers& workers, Stream& stream,
                const std::function<void(std::int64_t)>& drawn) {
  const std::int64_t elements = target.elements();
  const TensorView flat = target.reshaped({elements});
  std::vector<Real> values;
  for (std::int64_t first = 0; first < elements; first += kPiece) {
    values.resize(static_cast<std::size_t>(std::min(kPiece, elements - first)));
    draw(random, deviation, first, values, workers);
    const TensorView piece = flat.slice(0, first, static_cast<std::int64_t>(values.size()));
    copy(piece, view_of(static_cast<const void*>(values.data()), target.dtype, piece.shape), stream);
    stream.synchronize();
    if (drawn) drawn(static_cast<std::int64_t>(values.size()));
  }
}

}  // namespace

void initialise_parameter(Parameter& parameter, std::uint64_t seed, Stream& stream,
                          const std::function<void(std::int64_t elements)>& drawn) {
  if (parameter.init_std <= 0) return fill(parameter.value, static_cast<float>(parameter.init_value), stream);
  std::optional<Workers> own;  // numbers are drawn on the host, whatever the stream's device
  Workers& workers = stream.device().kind == DeviceKind::cpu ? stream.workers() : own.emplace();
  for (const ParameterSlice& slice : parameter.slices) {
    const Random random(seed ^ name_key(slice.name), Purpose::weight_init);
    const TensorView target = parameter.value.slice(0, slice.begin, slice.rows);
    if (target.dtype == DType::f64) {
      draw_slice<double>(random, parameter.init_std, target, workers, stream, drawn);
    } else {
      draw_slice<float>(random, parameter.init_std, target, workers, stream, drawn);
    }
  }
}

}  // namespace shoestring
