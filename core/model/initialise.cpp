#include "core/model/initialise.h"

#include <string_view>

#include "kernels/base/random.h"
#include "kernels/base/workers.h"

namespace shoestring {
namespace {

constexpr std::int64_t kGrain = 4096;

/// FNV-1a, 64 bits.
std::uint64_t name_key(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

void store(TensorView values, std::int64_t at, float value) {
  if (values.dtype == DType::f64) {
    values.as<double>()[at] = value;
  } else {
    values.as<float>()[at] = value;
  }
}

}  // namespace

void initialise_parameter(Parameter& parameter, std::uint64_t seed, Stream& stream) {
  for (const ParameterSlice& slice : parameter.slices) {
    const Random random(seed ^ name_key(slice.name), Purpose::weight_init);
    const std::int64_t begin = slice.begin * parameter.columns;
    stream.workers().split(slice.rows * parameter.columns, kGrain, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t i = from; i < to; ++i) {
        const double value = parameter.init_std > 0 ? parameter.init_std * random.normal(static_cast<std::uint64_t>(i))
                                                    : parameter.init_value;
        store(parameter.value, begin + i, static_cast<float>(value));
      }
    });
  }
}

}  // namespace shoestring
