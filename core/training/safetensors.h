// The safetensors file format: u64 little-endian header length, a JSON header, then the tensors without gaps.
//
// A file is treated as hostile: the header is bounded by the file and by fixed limits, every product is checked, and
// the tensors must cover the data section exactly (no holes, no overlap, no tail), so that a file means one thing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/tensor.h"

namespace shoestring {

/// A tensor to write: contiguous, of any device, whose stream has come to its end.
struct NamedTensor {
  std::string name;
  ConstTensorView data;
};

/// A tensor whose bytes are made while the file is written.
struct WrittenTensor {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::function<void(FileWriter&)> write;  ///< exactly bytes() bytes, row-major
  std::int64_t bytes() const { return shape.elements() * size_bytes(dtype); }
};

/// Bytes the file of these tensors will have.
std::int64_t safetensors_bytes(std::span<const NamedTensor> tensors);
/// Writes all tensors, larger element types first, then by name.
void write_safetensors(FileWriter& file, std::span<const NamedTensor> tensors);
void write_safetensors(FileWriter& file, std::span<const WrittenTensor> tensors);

/// An opened file; its header has been checked. Throws an Error of `code` naming file and rule.
class SafetensorsFile {
 public:
  struct Entry {
    std::string format;          ///< as the file says: "F32"
    std::optional<DType> dtype;  ///< absent for formats that no tensor here has (F16, I8 ...)
    Shape shape;
    std::int64_t begin = 0;  ///< in the file
    std::int64_t bytes = 0;
  };

  explicit SafetensorsFile(std::filesystem::path path, ExitCode code = ExitCode::corrupt_checkpoint);

  const std::filesystem::path& path() const { return path_; }
  /// "pt" as its metadata say, or empty.
  const std::string& framework() const { return framework_; }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  bool holds(const std::string& name) const { return entries_.contains(name); }
  /// Reads a tensor whose dtype and shape must equal those of `to` (contiguous, of any device: nobody else uses it).
  void read(const std::string& name, TensorView to) const;
  /// `bytes` bytes of the file, for who knows what they are.
  void read_bytes(std::int64_t begin, void* to, std::int64_t bytes) const;

 private:
  std::filesystem::path path_;
  ExitCode code_;
  FileHandle file_;
  std::string framework_;
  std::map<std::string, Entry> entries_;
};

}  // namespace shoestring
