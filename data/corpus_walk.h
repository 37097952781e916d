// The files of a corpus in the one fixed order that corpus.h describes. Not for the reader of corpora.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus.h"

namespace shoestring {

struct WalkedFile {
  enum class Kind : std::uint8_t { wanted, link, special, other_extension };
  Kind kind = Kind::wanted;
  std::filesystem::path path;
  std::int64_t input = 0;  ///< which of the inputs it is, or lies in
  std::int64_t begin = 0;  ///< bytes of all wanted files before it
  std::int64_t bytes = 0;  ///< of it; 0 where it is not wanted
};

class CorpusWalk {
 public:
  /// Throws Error(missing_input) naming an input that is not there, Error(usage) for an ending that is none.
  explicit CorpusWalk(const CorpusOptions& options);
  /// Nothing at the end. Throws Error(io).
  std::optional<WalkedFile> next();

 private:
  using Level = std::vector<std::filesystem::path>;  // entries of one folder still to visit, last one first
  bool wanted(const std::filesystem::path& candidate, bool named) const;
  WalkedFile walked(std::filesystem::path entry, std::filesystem::file_status status, bool named);

  std::vector<std::string> endings_;
  std::vector<std::filesystem::path> piped_;  // whose names say nothing
  std::vector<Level> levels_;                 // deepest last
  std::int64_t input_ = -1;
  std::int64_t bytes_ = 0;
};

/// A named input as it is walked: the folders on the way resolved, the name kept, since it says what the file is.
std::filesystem::path walked_path(const std::filesystem::path& input);
/// A file's name in small letters, without what says how it is packed.
std::string plain_name(const std::filesystem::path& file);
/// By such a name: every line is a document.
bool holds_lines(std::string_view name);

}  // namespace shoestring
