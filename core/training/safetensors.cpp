#include "core/training/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/json.h"
#include "kernels/base/lfs_pointer.h"

namespace shoestring {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian, and so are our tensors");

constexpr std::int64_t kMaxHeaderBytes = 16 << 20;
constexpr std::size_t kMaxTensors = 1'000'000;
constexpr std::size_t kMaxNameBytes = 512;
constexpr std::int64_t kPieceBytes = 16 << 20;  ///< of a device's tensor on its way through host memory

/// Every format of the file format. Those without a DType are skipped over: no tensor here has them.
struct Format {
  const char* name;
  std::int64_t bytes;
  std::optional<DType> dtype = std::nullopt;
};
constexpr std::array kFormats = std::to_array<Format>({
    {"F64", 8, DType::f64},
    {"F32", 4, DType::f32},
    {"BF16", 2, DType::bf16},
    {"F8_E4M3", 1, DType::e4m3},
    {"F8_E5M2", 1, DType::e5m2},
    {"F8_E8M0", 1, DType::e8m0},
    {"I64", 8, DType::i64},
    {"I32", 4, DType::i32},
    {"U8", 1, DType::u8},
    {"F16", 2},
    {"U64", 8},
    {"U32", 4},
    {"I16", 2},
    {"U16", 2},
    {"I8", 1},
    {"BOOL", 1},
});

const char* format_name(DType dtype) {
  for (const Format& format : kFormats) {
    if (format.dtype == dtype) return format.name;
  }
  fail(ExitCode::bug, "safetensors has no name for {}", name(dtype));
}

const Format* format_of(const std::string& text) {
  for (const Format& format : kFormats) {
    if (text == format.name) return &format;
  }
  return nullptr;
}

/// Hands a device's bytes on as u8 [count] beside as much host memory, piece after piece.
template <class Data, class Pass>
void by_pieces(const Data& data, const Pass& pass) {
  Stream stream(data.device);
  Tensor room(DType::u8, {std::min(data.bytes(), kPieceBytes)});
  for (std::int64_t begin = 0; begin < data.bytes(); begin += kPieceBytes) {
    Data there = data;
    there.dtype = DType::u8;
    there.shape = {data.bytes()};
    there.strides = {1};
    const Data piece = there.slice(0, begin, std::min(kPieceBytes, data.bytes() - begin));
    pass(piece, room.view().slice(0, 0, piece.elements()), stream);
  }
}

void write_bytes(FileWriter& file, const ConstTensorView& data) {
  if (data.device.kind == DeviceKind::cpu) return file.write(data.data, static_cast<std::size_t>(data.bytes()));
  by_pieces(data, [&](const ConstTensorView& piece, const TensorView& here, Stream& stream) {
    copy(here, piece, stream);
    stream.synchronize();
    file.write(here.data, static_cast<std::size_t>(here.bytes()));
  });
}

std::vector<WrittenTensor> written(std::span<const NamedTensor> tensors) {
  std::vector<WrittenTensor> all;
  for (const NamedTensor& tensor : tensors) {
    all.push_back({tensor.name, tensor.data.dtype, tensor.data.shape, [&tensor](FileWriter& file) {
                     check(tensor.data.contiguous(), "{} must be contiguous to be written", tensor.name);
                     write_bytes(file, tensor.data);
                   }});
  }
  return all;
}

std::vector<const WrittenTensor*> in_file_order(std::span<const WrittenTensor> tensors) {
  std::vector<const WrittenTensor*> order;
  for (const WrittenTensor& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const WrittenTensor* a, const WrittenTensor* b) {
    const auto key = [](const WrittenTensor* t) { return std::pair(-size_bytes(t->dtype), std::string_view(t->name)); };
    return key(a) < key(b);
  });
  return order;
}

std::string header_of(const std::vector<const WrittenTensor*>& order) {
  Json header = Json::object();
  header.add("__metadata__", Json::object({{"format", "pt"}}));
  std::int64_t offset = 0;
  for (const WrittenTensor* tensor : order) {
    std::vector<std::int64_t> shape;
    for (int dim = 0; dim < tensor->shape.rank(); ++dim) shape.push_back(tensor->shape[dim]);
    header.add(tensor->name,
               Json::object({{"dtype", format_name(tensor->dtype)},
                             {"shape", Json::array_of(shape)},
                             {"data_offsets", Json::array_of(std::array{offset, offset + tensor->bytes()})}}));
    offset += tensor->bytes();
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
  const Format* format = type->is_text() ? format_of(type->text()) : nullptr;
  if (format == nullptr) return "has an unknown dtype";
  entry.format = format->name;
  entry.dtype = format->dtype;
  if (!shape->is_array() || shape->size() > Shape::kMaxRank) return "has a shape that is not a list of up to 4 extents";
  std::vector<std::int64_t> extents;
  std::int64_t bytes = format->bytes;
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
  const std::vector<WrittenTensor> all = written(tensors);
  std::int64_t bytes = 8 + static_cast<std::int64_t>(header_of(in_file_order(all)).size());
  for (const NamedTensor& tensor : tensors) bytes += tensor.data.bytes();
  return bytes;
}

void write_safetensors(FileWriter& file, std::span<const NamedTensor> tensors) {
  write_safetensors(file, written(tensors));
}

void write_safetensors(FileWriter& file, std::span<const WrittenTensor> tensors) {
  const std::vector<const WrittenTensor*> order = in_file_order(tensors);
  const std::string header = header_of(order);
  const std::uint64_t length = header.size();
  file.write(&length, sizeof(length));
  file.write(header);
  for (const WrittenTensor* tensor : order) {
    const std::int64_t before = file.bytes();
    tensor->write(file);
    check(file.bytes() - before == tensor->bytes(), "{} wrote {} bytes of its {}", tensor->name, file.bytes() - before,
          tensor->bytes());
  }
}

SafetensorsFile::SafetensorsFile(std::filesystem::path path, ExitCode code) : path_(std::move(path)), code_(code) {
  const auto broken = [this](const std::string& rule) {
    fail(code_, "{}: not a sound safetensors file: {}; restore a copy", path_.string(), rule);
  };
  file_ = open_for_reading(path_);
  const std::int64_t bytes = file_bytes(file_, path_);
  if (bytes < 8) broken("shorter than its length field");
  std::uint64_t length = 0;
  read_at(file_, path_, 0, &length, sizeof(length));
  std::string front(static_cast<std::size_t>(std::min<std::int64_t>(bytes, kLfsPointer.size())), '\0');
  read_at(file_, path_, 0, front.data(), static_cast<std::int64_t>(front.size()));
  if (front == kLfsPointer) {
    fail(code_, "{}: holds a pointer of Git LFS and no tensors; {}", path_.string(), kLfsRemedy);
  }
  if (length > static_cast<std::uint64_t>(std::min(kMaxHeaderBytes, bytes - 8))) {
    broken(fmt::format("a header of {} bytes exceeds the file or the limit of {}", length, kMaxHeaderBytes));
  }
  std::string text(length, '\0');
  read_at(file_, path_, 8, text.data(), static_cast<std::int64_t>(length));
  if (text.empty() || text[0] != '{') broken("the header does not start with '{'");

  const Json header = parse_json(text, fmt::format("{}: the header", path_.string()), code_,
                                 {.bytes = static_cast<std::size_t>(kMaxHeaderBytes), .depth = 4});
  if (header.size() > kMaxTensors) broken("too many tensors");

  const std::int64_t data_begin = 8 + static_cast<std::int64_t>(length);
  std::vector<std::tuple<std::int64_t, std::int64_t, std::string_view>> spans;  // begin, bytes, name
  for (const auto& [key, value] : header.members()) {
    if (key == "__metadata__") {
      const Json* framework = value.find("format");
      if (framework != nullptr && framework->is_text()) framework_ = framework->text();
      continue;
    }
    if (key.size() > kMaxNameBytes) broken("a tensor name is too long");
    Entry entry{};
    const std::string rule = parse_entry(value, bytes - data_begin, entry);
    if (!rule.empty()) broken(fmt::format("tensor {} {}", key, rule));
    spans.emplace_back(entry.begin, entry.bytes, key);
    entry.begin += data_begin;
    entries_.emplace(key, entry);
  }
  std::sort(spans.begin(), spans.end());
  std::int64_t expected = 0;
  for (const auto& [begin, size, name] : spans) {
    if (begin != expected) {
      broken(fmt::format("tensor {} begins at data byte {}, and what is before it ends at {}", name, begin, expected));
    }
    expected += size;
  }
  if (expected != bytes - data_begin)
    broken(fmt::format("{} bytes that belong to no tensor", bytes - data_begin - expected));
}

void SafetensorsFile::read(const std::string& tensor, TensorView to) const {
  const auto found = entries_.find(tensor);
  if (found == entries_.end()) {
    fail(code_, "{}: tensor {} is missing; restore a copy", path_.string(), tensor);
  }
  const Entry& entry = found->second;
  if (entry.dtype != to.dtype || !(entry.shape == to.shape)) {
    fail(code_, "{}: tensor {} is {} {}, expected {}", path_.string(), tensor, entry.format, entry.shape.to_string(),
         to.to_string());
  }
  check(to.contiguous(), "{} must be read into contiguous memory", tensor);
  if (to.device.kind == DeviceKind::cpu) return read_at(file_, path_, entry.begin, to.data, entry.bytes);
  std::int64_t begin = entry.begin;
  by_pieces(to, [&](const TensorView& piece, const TensorView& here, Stream& stream) {
    read_at(file_, path_, begin, here.data, here.bytes());
    begin += here.bytes();
    copy(piece, here, stream);
    stream.synchronize();
  });
}

void SafetensorsFile::read_bytes(std::int64_t begin, void* to, std::int64_t bytes) const {
  read_at(file_, path_, begin, to, bytes);
}

}  // namespace shoestring
