#include "core/training/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>
#include <optional>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian, and so are our tensors");

constexpr std::int64_t kMaxHeaderBytes = 16 << 20;
constexpr std::size_t kMaxTensors = 1'000'000;
constexpr std::size_t kMaxNameBytes = 512;

constexpr std::array<std::pair<DType, const char*>, 8> kNames = {{
    {DType::f64, "F64"},
    {DType::f32, "F32"},
    {DType::bf16, "BF16"},
    {DType::e4m3, "F8_E4M3"},
    {DType::e5m2, "F8_E5M2"},
    {DType::i64, "I64"},
    {DType::i32, "I32"},
    {DType::u8, "U8"},
}};

const char* format_name(DType dtype) {
  for (const auto& [type, text] : kNames) {
    if (type == dtype) return text;
  }
  fail(ExitCode::bug, "safetensors has no name for {}", name(dtype));
}

std::optional<DType> dtype_of(const std::string& text) {
  for (const auto& [type, known] : kNames) {
    if (text == known) return type;
  }
  return std::nullopt;
}

std::vector<const NamedTensor*> in_file_order(std::span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const auto key = [](const NamedTensor* t) {
      return std::pair(-size_bytes(t->data.dtype), std::string_view(t->name));
    };
    return key(a) < key(b);
  });
  return order;
}

std::string header_of(const std::vector<const NamedTensor*>& order) {
  Json header = Json::object();
  header.add("__metadata__", Json::object({{"format", "pt"}}));
  std::int64_t offset = 0;
  for (const NamedTensor* tensor : order) {
    std::vector<std::int64_t> shape;
    for (int dim = 0; dim < tensor->data.shape.rank(); ++dim) shape.push_back(tensor->data.shape[dim]);
    header.add(tensor->name,
               Json::object({{"dtype", format_name(tensor->data.dtype)},
                             {"shape", Json::array_of(shape)},
                             {"data_offsets", Json::array_of(std::array{offset, offset + tensor->data.bytes()})}}));
    offset += tensor->data.bytes();
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

// Turns one header entry into an Entry, or explains which rule it breaks.
std::string parse_entry(const Json& value, std::int64_t data_bytes, SafetensorsFile::Entry& entry) {
  const Json* type = value.find("dtype");
  const Json* shape = value.find("shape");
  const Json* offsets = value.find("data_offsets");
  if (value.size() != 3 || type == nullptr || shape == nullptr || offsets == nullptr) {
    return "needs exactly dtype, shape and data_offsets";
  }
  const std::optional<DType> dtype = type->is_text() ? dtype_of(type->text()) : std::nullopt;
  if (!dtype) return "has an unknown dtype";
  entry.dtype = *dtype;
  if (!shape->is_array() || shape->size() > Shape::kMaxRank) return "has a shape that is not a list of up to 4 extents";
  std::vector<std::int64_t> extents;
  std::int64_t bytes = size_bytes(*dtype);
  for (const Json& extent : shape->items()) {
    if (!extent.is_count() || extent.whole() > data_bytes) return "has an extent out of range";
    extents.push_back(extent.whole());
    if (__builtin_mul_overflow(bytes, extents.back(), &bytes)) return "has a shape whose size overflows";
  }
  const auto offset = [&](std::size_t i) { return offsets->items()[i].whole(); };
  if (!offsets->is_array() || offsets->size() != 2 || !offsets->items()[0].is_count() ||
      !offsets->items()[1].is_count() || offset(1) > data_bytes || offset(0) > offset(1)) {
    return "has data_offsets outside the file";
  }
  entry.begin = offset(0);
  entry.bytes = offset(1) - entry.begin;
  if (entry.bytes != bytes) return "has data_offsets that do not fit its shape";
  switch (extents.size()) {
    case 0: entry.shape = {}; break;
    case 1: entry.shape = {extents[0]}; break;
    case 2: entry.shape = {extents[0], extents[1]}; break;
    case 3: entry.shape = {extents[0], extents[1], extents[2]}; break;
    default: entry.shape = {extents[0], extents[1], extents[2], extents[3]};
  }
  return {};
}

}  // namespace

std::int64_t safetensors_bytes(std::span<const NamedTensor> tensors) {
  std::int64_t bytes = 8 + static_cast<std::int64_t>(header_of(in_file_order(tensors)).size());
  for (const NamedTensor& tensor : tensors) bytes += tensor.data.bytes();
  return bytes;
}

void write_safetensors(FileWriter& file, std::span<const NamedTensor> tensors) {
  const std::vector<const NamedTensor*> order = in_file_order(tensors);
  const std::string header = header_of(order);
  const std::uint64_t length = header.size();
  file.write(&length, sizeof(length));
  file.write(header);
  for (const NamedTensor* tensor : order) {
    check(tensor->data.contiguous(), "{} must be contiguous to be written", tensor->name);
    file.write(tensor->data.data, static_cast<std::size_t>(tensor->data.bytes()));
  }
}

SafetensorsFile::SafetensorsFile(std::filesystem::path path) : path_(std::move(path)) {
  const auto broken = [this](const std::string& rule) {
    fail(ExitCode::corrupt_checkpoint, "{}: not a sound safetensors file: {}", path_.string(), rule);
  };
  file_ = open_for_reading(path_);
  const std::int64_t bytes = file_bytes(file_, path_);
  if (bytes < 8) broken("shorter than its length field");
  std::uint64_t length = 0;
  read_at(file_, path_, 0, &length, sizeof(length));
  if (length > static_cast<std::uint64_t>(std::min(kMaxHeaderBytes, bytes - 8))) {
    broken(fmt::format("a header of {} bytes exceeds the file or the limit of {}", length, kMaxHeaderBytes));
  }
  std::string text(length, '\0');
  read_at(file_, path_, 8, text.data(), static_cast<std::int64_t>(length));
  if (text.empty() || text[0] != '{') broken("the header does not start with '{'");

  const Json header = parse_json(text, fmt::format("{}: the header", path_.string()), ExitCode::corrupt_checkpoint,
                                 {.bytes = static_cast<std::size_t>(kMaxHeaderBytes), .depth = 4});
  if (header.size() > kMaxTensors) broken("too many tensors");

  const std::int64_t data_begin = 8 + static_cast<std::int64_t>(length);
  std::vector<std::pair<std::int64_t, std::int64_t>> spans;
  for (const auto& [key, value] : header.members()) {
    if (key == "__metadata__") continue;
    if (key.size() > kMaxNameBytes) broken("a tensor name is too long");
    Entry entry{};
    const std::string rule = parse_entry(value, bytes - data_begin, entry);
    if (!rule.empty()) broken(fmt::format("tensor {} {}", key, rule));
    spans.emplace_back(entry.begin, entry.bytes);
    entry.begin += data_begin;
    entries_.emplace(key, entry);
  }
  std::sort(spans.begin(), spans.end());
  std::int64_t expected = 0;
  for (const auto& [begin, size] : spans) {
    if (begin != expected) broken(fmt::format("a gap or an overlap at data byte {}", expected));
    expected += size;
  }
  if (expected != bytes - data_begin)
    broken(fmt::format("{} bytes that belong to no tensor", bytes - data_begin - expected));
}

void SafetensorsFile::read(const std::string& tensor, TensorView to) const {
  const auto found = entries_.find(tensor);
  if (found == entries_.end()) {
    fail(ExitCode::corrupt_checkpoint, "{}: tensor {} is missing", path_.string(), tensor);
  }
  const Entry& entry = found->second;
  if (entry.dtype != to.dtype || !(entry.shape == to.shape)) {
    fail(ExitCode::corrupt_checkpoint, "{}: tensor {} is {} {}, expected {}", path_.string(), tensor,
         shoestring::name(entry.dtype), entry.shape.to_string(), to.to_string());
  }
  check(to.contiguous(), "{} must be read into contiguous memory", tensor);
  read_at(file_, path_, entry.begin, to.data, entry.bytes);
}

}  // namespace shoestring
