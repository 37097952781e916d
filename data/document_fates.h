// What becomes of each document of a rank: 8 bytes of a file a document, of which a block of 32 KiB is in memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "data/working_file.h"

namespace shoestring {

enum class DocumentVerdict : std::uint8_t { keep, exact_duplicate, near_duplicate, left_out };

struct DocumentFate {
  std::uint32_t bytes = 0;  ///< of its text
  DocumentVerdict verdict = DocumentVerdict::keep;
  std::uint8_t drawn = 0;  ///< 1: as HoldOut::draws says
  std::uint16_t unused = 0;
};

/// In the order of documents access is cheap. For one thread at a time.
class DocumentFates {
 public:
  /// Of no documents yet. The file goes with it.
  explicit DocumentFates(const std::filesystem::path& path) : file_(path, WorkingFile::Content::none) {}
  ~DocumentFates() { file_.remove(); }
  DocumentFates(const DocumentFates&) = delete;
  DocumentFates& operator=(const DocumentFates&) = delete;

  void append(const DocumentFate& fate);
  void judge(std::int64_t document, DocumentVerdict verdict);
  std::int64_t count() const { return count_; }
  DocumentFate operator[](std::int64_t document) { return in_memory(document); }

 private:
  DocumentFate& in_memory(std::int64_t document);
  std::int64_t held(std::int64_t documents) const;

  WorkingFile file_;
  std::int64_t count_ = 0;
  std::int64_t stored_ = 0;  // of them in the file
  std::array<DocumentFate, 4096> block_{};
  std::int64_t begin_ = 0;  // document of block_'s first
  bool changed_ = false;    // the block, since it was read
};

}  // namespace shoestring
