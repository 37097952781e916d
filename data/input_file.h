// One file of a corpus as a stream of bytes, unpacked on the way where it is compressed.
//
// Memory is bounded whatever the file holds: a chunk of it, a chunk of what comes out, and what the unpacker keeps
// (unpack.h). A file that would unpack to an absurd multiple of itself is refused while it does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "data/unpack.h"
#include "kernels/base/file.h"

namespace shoestring {

struct UnpackLimits {
  double ratio = 2000;                                ///< bytes out per byte in; gzip itself ends at 1,032
  std::int64_t free_bytes = std::int64_t{256} << 20;  ///< that many may come out whatever the ratio
};

class InputFile {
 public:
  /// Throws Error(io) where it cannot be opened or read.
  explicit InputFile(std::filesystem::path path, const UnpackLimits& limits = {});

  /// What comes next: at least `least` bytes, unless the file ends before; empty at its end. Valid until the next call.
  /// Throws Error(io), and Error(bad_data) naming the place for what cannot be unpacked or ends in the middle.
  std::string_view ahead(std::size_t least = 1);
  /// The first `bytes` of what `ahead` gave have been used.
  void consume(std::size_t bytes) {
    begin_ += bytes;
    position_ += static_cast<std::int64_t>(bytes);
  }
  /// Bytes of text that have been used.
  std::int64_t position() const { return position_; }
  /// Goes on at byte `position` of a file that is not packed.
  void seek(std::int64_t position);

  const std::filesystem::path& path() const { return path_; }
  /// "gzip"; empty where the file is read as it stands.
  std::string_view packing() const { return packing_ != nullptr ? packing_->name : std::string_view(); }
  /// Of the file itself, so far.
  std::int64_t read_bytes() const { return read_bytes_; }

 private:
  bool more();
  bool read(std::string& to);
  void unpack();
  [[noreturn]] void refuse(const std::string& why) const;

  std::filesystem::path path_;
  UnpackLimits limits_;
  FileHandle file_;
  const Packing* packing_ = nullptr;
  std::unique_ptr<Unpacker> unpacker_;
  std::string packed_;  // read and not unpacked yet, from packed_begin_ on
  std::size_t packed_begin_ = 0;
  std::string text_;  // what `ahead` shows, from begin_ on
  std::size_t begin_ = 0;
  std::int64_t position_ = 0;
  std::int64_t file_bytes_ = 0;  // when it was opened
  std::int64_t read_bytes_ = 0;
  std::int64_t text_bytes_ = 0;  // unpacked so far
  bool file_ended_ = false;
  bool stream_ended_ = false;
};

}  // namespace shoestring
