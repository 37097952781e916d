#include "core/training/import_rows.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/dtype.h"

namespace shoestring {
namespace {

using Place = ImportFolder::Place;

constexpr std::int64_t kChunkBytes = 4 << 20;  // of single precision

std::int64_t blocks(std::int64_t extent, std::int64_t block) { return (extent + block - 1) / block; }

std::int64_t element_bytes(const Place& place) {
  return place.entry->shape.elements() == 0 ? 1 : place.entry->bytes / place.entry->shape.elements();
}

// ---- finding

/// "…mlp.experts.7.gate_proj.weight": a weight of one expert, and where it is in the fused tensors.
struct ExpertName {
  std::string fused;  ///< the tensor of all experts
  std::int64_t expert = 0;
  int part = 0;  ///< 0 or 1 of `parts` equal runs of rows
  int parts = 1;
};

std::optional<ExpertName> expert_name(const std::string& name) {
  constexpr std::string_view kExperts = ".mlp.experts.";
  const std::size_t at = name.find(kExperts);
  if (at == std::string::npos) return {};
  const std::size_t number = at + kExperts.size();
  ExpertName found;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + number, end, found.expert);
  const std::string_view which(rest, static_cast<std::size_t>(end - rest));
  if (error != std::errc{}) return {};
  const std::string prefix = name.substr(0, number);
  if (which == ".down_proj.weight") {
    found.fused = prefix + "down_proj";
  } else if (which == ".gate_proj.weight" || which == ".up_proj.weight") {
    found.fused = prefix + "gate_up_proj";
    found.part = which == ".up_proj.weight" ? 1 : 0;
    found.parts = 2;
  } else {
    return {};
  }
  return found;
}

constexpr const char* kOneModel = "; take config.json and all weights from one model";

[[noreturn]] void refuse(const ImportFolder& folder, const Place& place, const std::string& name,
                         const std::string& why) {
  const std::string where = place.file != nullptr ? place.file->path().string() : folder.path().string();
  fail(ExitCode::bad_data, "{}: tensor {}{}", where, name, why);
}

std::string described(const Place& place) {
  return fmt::format(" is {} {}", place.entry->format, place.entry->shape.to_string());
}

void find_scales(const ImportFolder& folder, RowSource& source) {
  const std::string name = source.name + "_scale_inv";
  const Place scales = folder.find(name);
  if (!folder.facts().fp8_block) {
    refuse(folder, source.values, source.name,
           std::string(" is F8_E4M3, but config.json has no quantization_config") + kOneModel);
  }
  if (scales.file == nullptr)
    refuse(folder, source.values, source.name, " is F8_E4M3, but there is no " + name + kOneModel);
  source.block = *folder.facts().fp8_block;
  const Shape expected{blocks(source.rows, source.block), blocks(source.columns, source.block)};
  if (!(scales.entry->shape == expected) || scales.entry->dtype != DType::f32) {
    refuse(folder, scales, name,
           described(scales) + fmt::format(", expected F32 {} for blocks of {}", expected.to_string(), source.block));
  }
  source.scales_name = name;
  source.scales = scales;
}

bool readable(const Place& place) {
  const auto& format = place.entry->format;
  return format == "F32" || format == "BF16" || format == "F16" || format == "F8_E4M3";
}

// ---- reading

float from_half(std::uint16_t bits) {
  const float magnitude = dtype_bits::small_to_float(bits & 0x7FFFU, 10, 15);
  if ((bits & 0x7C00U) == 0x7C00U) return std::numeric_limits<float>::quiet_NaN();  // refused either way
  return (bits & 0x8000U) != 0 ? -magnitude : magnitude;
}

std::array<float, 256> e4m3_values() {
  std::array<float, 256> values{};
  for (std::size_t code = 0; code < values.size(); ++code) {
    E4M3 number;
    number.bits = static_cast<std::uint8_t>(code);
    values[code] = number;
  }
  return values;
}

/// `count` numbers of a plain format at `from`.
void widen(const std::string& format, const unsigned char* from, std::int64_t count, float* to) {
  if (format == "F32") {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
    return;
  }
  const bool half = format == "F16";
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, from + 2 * i, 2);
    to[i] = half ? from_half(bits) : dtype_bits::to_float(static_cast<std::uint32_t>(bits) << 16);
  }
}

std::vector<float> scales_of(const RowSource& source) {
  std::vector<float> scales;
  if (source.scales.file == nullptr) return scales;
  scales.resize(static_cast<std::size_t>(source.scales.entry->shape.elements()));
  source.scales.file->read_bytes(source.scales.entry->begin, scales.data(), source.scales.entry->bytes);
  return scales;
}

/// One row of codes; `scales` are those of its blocks.
void dequantize_row(const unsigned char* codes, const float* scales, const RowSource& source, float* to) {
  static const std::array<float, 256> kValues = e4m3_values();
  for (std::int64_t c = 0; c < source.columns; ++c) to[c] = kValues[codes[c]] * scales[c / source.block];
}

void check_finite(const RowSource& source, std::int64_t row, std::int64_t rows, const float* values) {
  const std::int64_t count = rows * source.columns;
  const float* bad = std::find_if(values, values + count, [](float value) { return !std::isfinite(value); });
  if (bad == values + count) return;
  fail(ExitCode::bad_data,
       "{}: tensor {}: row {} holds a value that is not finite; take another checkpoint of the model",
       source.values.file->path().string(), source.name, source.first_row + row + (bad - values) / source.columns);
}

}  // namespace

std::int64_t RowSource::begin() const { return values.entry->begin + first_row * columns * element_bytes(values); }

std::int64_t RowSource::bytes() const { return rows * columns * element_bytes(values); }

RowSource find_rows(const ImportFolder& folder, const std::string& name, const Shape& shape) {
  RowSource source;
  source.name = name;
  source.values = folder.find(name);
  source.rows = shape.rank() > 0 ? shape[0] : 1;
  source.columns = shape.rank() > 1 ? shape[1] : 1;
  Shape expected = shape;
  const std::optional<ExpertName> fused = source.values.file == nullptr ? expert_name(name) : std::nullopt;
  if (fused && folder.find(fused->fused).file != nullptr) {
    source.name = fused->fused;
    source.values = folder.find(fused->fused);
    source.first_row = (fused->expert * fused->parts + fused->part) * source.rows;
    expected = {folder.config().experts, fused->parts * source.rows, source.columns};
  }
  if (source.values.file == nullptr) refuse(folder, source.values, name, std::string(" is missing") + kOneModel);
  if (!(source.values.entry->shape == expected)) {
    refuse(folder, source.values, source.name,
           described(source.values) +
               fmt::format(", but the model of config.json has {} there{}", expected.to_string(), kOneModel));
  }
  if (!readable(source.values)) {
    refuse(folder, source.values, source.name,
           described(source.values) + "; weights are read in F32, BF16, F16, F8_E4M3: convert them");
  }
  if (source.values.entry->dtype == DType::e4m3) find_scales(folder, source);
  return source;
}

void read_rows(const RowSource& source, const TakeRows& take) {
  if (source.rows * source.columns == 0) return;
  const std::int64_t width = element_bytes(source.values);
  const std::int64_t most = std::max<std::int64_t>(1, kChunkBytes / (source.columns * 4));
  const std::vector<float> scales = scales_of(source);
  const std::int64_t scale_columns = source.block > 0 ? blocks(source.columns, source.block) : 0;
  std::vector<unsigned char> bytes;
  std::vector<float> values;
  for (std::int64_t row = 0; row < source.rows; row += most) {
    const std::int64_t rows = std::min(most, source.rows - row);
    const std::int64_t count = rows * source.columns;
    bytes.resize(static_cast<std::size_t>(count * width));
    values.resize(static_cast<std::size_t>(count));
    source.values.file->read_bytes(source.begin() + row * source.columns * width, bytes.data(), count * width);
    if (scales.empty()) {
      widen(source.values.entry->format, bytes.data(), count, values.data());
    } else {
      for (std::int64_t r = 0; r < rows; ++r) {
        dequantize_row(bytes.data() + r * source.columns,
                       scales.data() + (source.first_row + row + r) / source.block * scale_columns, source,
                       values.data() + r * source.columns);
      }
    }
    check_finite(source, row, rows, values.data());
    take(row, rows, values.data());
  }
}

bool same_rows(const RowSource& a, const RowSource& b) {
  const std::int64_t most = std::max<std::int64_t>(1, kChunkBytes / (std::max<std::int64_t>(1, a.columns) * 4));
  bool same = a.rows == b.rows && a.columns == b.columns;
  for (std::int64_t row = 0; same && row < a.rows; row += most) {
    const auto part = [&](const RowSource& whole) {
      RowSource some = whole;
      some.first_row += row;
      some.rows = std::min(most, whole.rows - row);
      std::vector<float> values;
      read_rows(some, [&](std::int64_t, std::int64_t rows, const float* read) {
        values.insert(values.end(), read, read + rows * whole.columns);
      });
      return values;
    };
    const std::vector<float> left = part(a);
    const std::vector<float> right = part(b);
    same = left.size() == right.size() && std::memcmp(left.data(), right.data(), left.size() * sizeof(float)) == 0;
  }
  return same;
}

}  // namespace shoestring
