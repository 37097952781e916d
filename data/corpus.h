// Folders of text, or JSONL, as a stream of documents in one fixed order.
//
// Folders are walked depth first, entries sorted by name; links are not followed. A file is one document (a larger one
// is cut at line ends into several); in a *.jsonl file every line is one. Files that hold a NUL byte early on are not
// text and are passed over, with a count. Memory: one document, and the names of one folder per level.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace shoestring {

struct CorpusOptions {
  std::vector<std::filesystem::path> inputs;            ///< files and folders
  std::vector<std::string> extensions;                  ///< ".h", ".txt"; empty: every file that is text
  std::string jsonl_field = "text";                     ///< where a JSONL line keeps its text
  std::int64_t document_bytes = std::int64_t{8} << 20;  ///< longer files are cut
  std::int64_t limit_bytes = 0;                         ///< stop after that much text; 0: all of it
};

struct Document {
  std::string name;  ///< path, with "#2" behind it for a second part, ":17" for a JSONL line
  std::string text;
};

struct CorpusCounts {
  std::int64_t files = 0;
  std::int64_t documents = 0;
  std::int64_t bytes = 0;
  std::int64_t binary_files = 0;  ///< passed over
  std::int64_t empty = 0;         ///< passed over
};

class CorpusReader {
 public:
  /// Throws Error(missing_input) naming an input that is not there.
  explicit CorpusReader(CorpusOptions options);
  ~CorpusReader();
  CorpusReader(const CorpusReader&) = delete;
  CorpusReader& operator=(const CorpusReader&) = delete;

  /// The next document; false at the end. Throws Error(bad_data) naming file and line for a JSONL line that is not an
  /// object with the field, Error(io) for a file that cannot be read.
  bool next(Document& document);
  const CorpusCounts& counts() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoestring
