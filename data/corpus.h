// Folders of text, or JSONL, as a stream of documents in one fixed order.
//
// Folders are walked depth first, entries sorted by name. A file is one document (a larger one is cut at line ends into
// several); in a *.jsonl or *.ndjson file every line is one, in a *.json file if its first line is an object with the
// text. Endings leave out what folders and inputs have of others, but for such files of lines that are inputs: they
// were asked for. Compressed files are unpacked on the way, known by their content (unpack.h), and are then what their
// name without the packing's ending says. Parquet and Arrow files, known by their content too, are tables whose rows
// are documents (table_file.h). The name that was given, or that stands in the folder, says what a file is, not the
// name a link leads to. Links found in folders are not followed, since their text would come twice or never end; inputs
// that are links are. What is passed over is counted, each kind by itself: a corpus must not shrink in silence. Memory:
// one document, and the names of one folder per level.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/input_file.h"
#include "data/line_fields.h"

namespace shoestring {

/// One of `count` parts of a corpus, which together hold its documents once and in order. Files of lines that are not
/// packed are cut at line ends; of all others a part holds whole ones. Text up to a limit is the first part's alone.
struct CorpusPart {
  int index = 0;
  int count = 1;
  /// Lines before the part's first one in a file that an earlier part begins, where that is known: their numbers in
  /// names.
  std::int64_t lines_before = 0;
};

/// Of the file that a part's end cuts: what the next part's `lines_before` is made of.
struct LinesAcross {
  std::int64_t lines = 0;  ///< of it in this part, those before it included where they were known; 0 where none is cut
  bool through = false;    ///< an earlier part has the file's front
};

struct CorpusOptions {
  std::vector<std::filesystem::path> inputs;            ///< files and folders
  std::vector<std::string> extensions;                  ///< ".h", "h", "*.h" in any case; empty: all text
  LineFields fields{};                                  ///< where a JSONL line keeps its text, and which are wanted
  std::int64_t document_bytes = std::int64_t{8} << 20;  ///< longer files are cut
  std::int64_t limit_bytes = 0;                         ///< stop after that much text; 0: all of it
  std::int64_t input_limit_bytes = 0;                   ///< go to the next input after that much text of one
  double skip_bad = 0;                                  ///< share of JSONL lines that may be no documents
  UnpackLimits unpack{};
  /// Inputs whose names say nothing, as copies of pipes have: what they are called, and known by content alone.
  std::map<std::filesystem::path, std::string> piped{};
  CorpusPart part{};
};

struct Document {
  std::string name;  ///< path, with "#2" behind it for a second part, ":17" for a JSONL line
  std::string text;
};

struct CorpusCounts {
  std::int64_t files = 0;         ///< opened
  std::int64_t packed_files = 0;  ///< of them
  std::int64_t read_bytes = 0;    ///< of the files as they lie on disk
  std::int64_t documents = 0;
  std::int64_t bytes = 0;
  std::int64_t lines = 0;  ///< of JSONL, blank ones aside, and rows of tables
  // Passed over:
  std::int64_t empty = 0;  ///< documents
  std::int64_t links = 0;  ///< found in folders
  std::int64_t other_extensions = 0;
  std::int64_t special_files = 0;                     ///< pipes, sockets, devices
  std::int64_t bad_lines = 0;                         ///< of those, under skip_bad
  std::int64_t unwanted_lines = 0;                    ///< of those, by their fields
  std::int64_t not_utf8 = 0;                          ///< documents that are taken though they hold other bytes
  std::string first_not_utf8{};                       ///< the name of the first
  std::map<std::string, std::int64_t> lines_without;  ///< by field of several, of the lines that are taken
  std::string first_bad{};                            ///< what is wrong with the first bad line
  std::map<std::string, std::int64_t> kinds_of_file;  ///< that are not text: "gzip", "UTF-16", "binary"

  std::int64_t binary_files() const;  ///< all of those
  /// Of a later part.
  void add(const CorpusCounts& later);
  bool operator==(const CorpusCounts&) const = default;
};

/// A share can only be judged by the whole. Throws Error(bad_data) naming the first bad line.
void check_bad_lines(const CorpusCounts& counts, double skip_bad);

/// That each of several fields is in some line: one that is in none is mistyped, and its text would be missing in all.
/// Throws Error(bad_data).
void check_fields(const CorpusCounts& counts, const LineFields& fields);

/// What is taken and may not be what was meant, one sentence a kind.
std::vector<std::string> taken_as_it_is(const CorpusCounts& counts);

/// What was passed over and what would bring it in, one sentence a kind; empty where nothing was.
std::vector<std::string> passed_over(const CorpusCounts& counts);

class CorpusReader {
 public:
  /// Throws Error(missing_input) naming an input that is not there.
  explicit CorpusReader(CorpusOptions options);
  ~CorpusReader();
  CorpusReader(const CorpusReader&) = delete;
  CorpusReader& operator=(const CorpusReader&) = delete;

  /// The next document; false at the end. Throws Error(bad_data) naming file and line for a JSONL line that is not an
  /// object with the field (with skip_bad at the end, if there were too many; of one of several parts they are only
  /// counted), Error(io) for a file that cannot be read.
  bool next(Document& document);
  const CorpusCounts& counts() const;
  /// Of the input as it lies on disk, so far: for progress.
  std::int64_t read_bytes() const;
  /// At the end of a part.
  const LinesAcross& lines_across() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Of inputs that are files, not folders, and are read as plain text though they begin like JSONL or a JSON array, as a
/// file under a name of its own or a blob of a store does: a sentence each, with what would make documents of it. Their
/// names decide all the same. Throws Error(io).
std::vector<std::string> doubtful_inputs(const CorpusOptions& options);

/// Of all files of all parts, as they lie on disk.
std::int64_t corpus_bytes(const CorpusOptions& options);

}  // namespace shoestring
