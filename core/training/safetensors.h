// The safetensors file format: u64 little-endian header length, a JSON header, then the tensors without gaps.
//
// A file is treated as hostile: the header is bounded by the file and by fixed limits, every product is checked, and
// the tensors must cover the data section exactly (no holes, no overlap, no tail), so that a file means one thing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/file.h"
#include "kernels/base/tensor.h"

namespace shoestring {

/// A tensor to write: contiguous host memory.
struct NamedTensor {
  std::string name;
  ConstTensorView data;
};

/// Bytes the file of these tensors will have.
std::int64_t safetensors_bytes(std::span<const NamedTensor> tensors);
/// Writes all tensors, larger element types first, then by name.
void write_safetensors(FileWriter& file, std::span<const NamedTensor> tensors);

/// An opened file; its header has been checked. Throws Error(corrupt_checkpoint) naming file and rule.
class SafetensorsFile {
 public:
  struct Entry {
    DType dtype;
    Shape shape;
    std::int64_t begin = 0;  ///< in the file
    std::int64_t bytes = 0;
  };

  explicit SafetensorsFile(std::filesystem::path path);

  const std::map<std::string, Entry>& entries() const { return entries_; }
  bool holds(const std::string& name) const { return entries_.contains(name); }
  /// Reads a tensor whose dtype and shape must equal those of `to` (contiguous).
  void read(const std::string& name, TensorView to) const;

 private:
  std::filesystem::path path_;
  FileHandle file_;
  std::map<std::string, Entry> entries_;
};

}  // namespace shoestring
