#include "data/corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "data/characters.h"
#include "data/corpus_walk.h"
#include "data/file_kind.h"
#include "data/input_front.h"
#include "data/table_file.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLineLimit = std::size_t{64} << 20;

/// Bytes [begin, end) of all files together: what begins there belongs to the part. Text up to a limit is one part.
struct ByteRange {
  std::int64_t begin = 0;
  std::int64_t end = std::numeric_limits<std::int64_t>::max();
};

ByteRange range_of(const CorpusOptions& options) {
  const CorpusPart& part = options.part;
  check(part.index >= 0 && part.index < part.count, "part {} of {} of a corpus", part.index, part.count);
  if (part.count == 1) return {};
  if (options.limit_bytes > 0 || options.input_limit_bytes > 0)
    return part.index == 0 ? ByteRange{} : ByteRange{ByteRange{}.end, ByteRange{}.end};
  const auto bytes = static_cast<double>(corpus_bytes(options));
  const auto border = [&](int index) { return static_cast<std::int64_t>(bytes / part.count * index); };
  return {border(part.index), part.index + 1 == part.count ? ByteRange{}.end : border(part.index + 1)};
}

/// Bytes at the front of `text` that end where a character does; all of them where the end is no part of one.
std::size_t whole_characters(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<std::uint8_t>(text[text.size() - back]);
    if (byte < 0x80) break;
    if (byte < 0xC0) continue;
    const std::size_t needs = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    return needs > back && text.size() > back ? text.size() - back : text.size();
  }
  return text.size();
}

}  // namespace

struct CorpusReader::State {
  explicit State(CorpusOptions given) : options(std::move(given)), walk(options), range(range_of(options)) {
    for (const auto& pipe : options.piped) piped.emplace(walked_path(pipe.first), pipe.second);
  }

  CorpusOptions options;
  CorpusWalk walk;
  ByteRange range;
  CorpusCounts counts;
  std::map<fs::path, std::string> piped;
  std::optional<InputFile> file;   // the one being read
  std::optional<TableFile> table;  // or the table
  WalkedFile walked;               // which that is
  std::string name;                // what it is called
  bool lines = false;              // each is a document
  bool within = false;             // an earlier part has its front
  std::int64_t part = 0;           // part or line of it
  LinesAcross across;
  std::int64_t input = -1;    // that is being read
  std::int64_t of_input = 0;  // bytes of text it has given

  bool reading() const { return file || table; }
  bool is_own(const WalkedFile& one) const { return one.begin >= range.begin && one.begin < range.end; }

  bool input_is_enough() const { return options.input_limit_bytes > 0 && of_input >= options.input_limit_bytes; }

  // False at the end of the walk, or of what can belong to this part.
  bool open_next() {
    while (const std::optional<WalkedFile> next = walk.next()) {
      if (next->begin >= range.end) return false;
      if (next->input == input && input_is_enough()) continue;
      if (next->input != input) of_input = 0;
      input = next->input;
      if (next->kind == WalkedFile::Kind::wanted) {
        if ((is_own(*next) || next->begin + next->bytes > range.begin) && open(*next)) return true;
      } else if (is_own(*next)) {
        ++(next->kind == WalkedFile::Kind::link      ? counts.links
           : next->kind == WalkedFile::Kind::special ? counts.special_files
                                                     : counts.other_extensions);
      }
    }
    return false;
  }

  // False for a file that is passed over, which is counted by the part that holds its front.
  bool open(const WalkedFile& next) {
    walked = next;
    within = !is_own(next);
    file.emplace(next.path, options.unpack);
    const auto pipe = piped.find(next.path);
    name = pipe == piped.end() ? next.path.string() : pipe->second;
    const std::string_view front = file->ahead(kFileKindBytes);
    const std::string plain = plain_name(next.path);
    lines = holds_lines_of_json({plain, pipe != piped.end()}, front, options.fields);
    if (within) return go_on_within();
    part = 0;
    ++counts.files;
    if (!file->packing().empty()) ++counts.packed_files;
    return take_kind(front);
  }

  // By what the file begins with.
  bool take_kind(std::string_view front) {
    if (file->packing().empty() && TableFile::begins(front) && TableFile::unavailable().empty()) {
      if (options.fields.chat) {
        fail(ExitCode::bad_data, "{}: is a table; conversations are read from lines of JSON", name);
      }
      table.emplace(walked.path, options.fields);
      lines = true;
      file.reset();
      return true;
    }
    const FileKind kind = file_kind(front);
    if (kind.is_text() && !front.empty()) {
      if (options.fields.chat && !lines) {
        fail(ExitCode::bad_data,
             "{}: is plain text; conversations are read from lines of JSON: name such files .jsonl, or leave out all "
             "others (--extensions jsonl)",
             name);
      }
      return true;
    }
    if (!kind.is_text() && lines) {
      fail(ExitCode::bad_data, "{}: is named as lines of JSON, but is {}: {}", name, kind.name, kind.remedy);
    }
    ++(kind.is_text() ? counts.empty : counts.kinds_of_file[std::string(kind.name)]);
    close();
    return false;
  }

  // Lines that begin in the part's range are its own; false where the whole file belongs to an earlier one.
  bool go_on_within() {
    if (!lines || !file->packing().empty()) {
      file.reset();
      return false;
    }
    part = options.part.lines_before;
    file->seek(range.begin - walked.begin - 1);
    while (true) {
      const std::string_view next = file->ahead();
      const std::size_t end = next.find('\n');
      file->consume(std::min(next.size(), end == std::string_view::npos ? next.size() : end + 1));
      if (next.empty() || end != std::string_view::npos) return true;
    }
  }

  void close() {
    if (file && lines && walked.begin + walked.bytes > range.end) across = {part, within};
    counts.read_bytes += read_bytes_of_file();
    file.reset();
    table.reset();
  }
  // Of the part's share of the file.
  std::int64_t read_bytes_of_file() const {
    if (table) return walked.bytes;
    if (!file) return 0;
    if (!file->packing().empty() || !lines) return file->read_bytes();
    return std::min(file->position(), range.end - walked.begin) - std::max<std::int64_t>(0, range.begin - walked.begin);
  }

  // Up to document_bytes, cut behind the last line end unless the file ends there. False at its end.
  bool next_part(std::string& text) {
    const auto limit = static_cast<std::size_t>(options.document_bytes);
    std::string_view next = file->ahead(limit + 1);
    if (next.size() > limit) {
      next = next.substr(0, limit);
      const std::size_t line = next.rfind('\n');
      next = next.substr(0, line != std::string_view::npos ? line + 1 : whole_characters(next));
    }
    text.assign(next);
    file->consume(next.size());
    ++part;
    return !text.empty();
  }

  // One line without its end, never holding more than kLineLimit of it.
  bool read_line(std::string& line) {
    if (file->packing().empty() && walked.begin + file->position() >= range.end) return false;  // a later part's
    std::string_view next = file->ahead();
    if (next.empty()) return false;
    std::size_t searched = 0;
    std::size_t end = next.find('\n');
    while (end == std::string_view::npos) {
      if (next.size() > kLineLimit) {
        fail(ExitCode::bad_data, "{}: a line exceeds {} bytes", place(part + 1), kLineLimit);
      }
      searched = next.size();
      next = file->ahead(searched + 1);
      if (next.size() == searched) break;  // the last line has no end
      end = next.find('\n', searched);
    }
    line.assign(next.substr(0, end));
    file->consume(std::min(next.size(), line.size() + 1));
    return true;
  }

  // Of a line or row.
  std::string place(std::int64_t number) const {
    if (!within || options.part.lines_before > 0) return fmt::format("{}:{}", name, number);
    return fmt::format("{}: line {} behind byte {}", name, number, range.begin - walked.begin);
  }

  // What `answer` gives for a line; nothing where it is not wanted, or is bad and may be.
  template <class Answer>
  std::optional<std::string> text_of(const Answer& answer) {
    try {
      LineText found = answer();
      if (!found.wanted) {
        ++counts.unwanted_lines;
        return std::nullopt;
      }
      if (!found.text) {
        fail(ExitCode::bad_data, "{}: is not {} \"{}\"; name another with --field", place(part),
             table ? "a row with text in a column" : "a JSON object with a text field",
             fmt::join(options.fields.text, ","));
      }
      for (const std::size_t at : found.absent) ++counts.lines_without[options.fields.text[at]];
      return std::move(found.text);
    } catch (const Error& error) {
      if (options.skip_bad <= 0) {
        fail(error.code(), "{}; mend it, or let some be left out and counted: --skip-bad 0.1%", error.what());
      }
      if (counts.bad_lines++ == 0) counts.first_bad = error.what();
      return std::nullopt;
    }
  }

  bool next_line(std::string& text) {
    std::string line;
    while (read_line(line)) {
      ++part;
      if (is_blank(line)) continue;
      ++counts.lines;
      auto found = text_of([&] { return text_of_line(line, options.fields, place(part)); });
      if (!found) continue;
      text = *std::move(found);
      return true;
    }
    return false;
  }

  bool next_row(std::string& text) {
    for (LineText row; table->next(row); row = {}) {
      ++part;
      ++counts.lines;
      auto found = text_of([&] { return std::move(row); });
      if (!found) continue;
      text = *std::move(found);
      return true;
    }
    return false;
  }

  bool next(Document& document) {
    while (true) {
      const bool enough = options.limit_bytes > 0 && counts.bytes >= options.limit_bytes;
      if (enough || (!reading() && !open_next())) {
        if (options.part.count == 1) check_bad_lines(counts, options.skip_bad);
        return false;
      }
      if (!(table ? next_row(document.text) : lines ? next_line(document.text) : next_part(document.text))) {
        close();
        continue;
      }
      if (document.text.empty()) {
        ++counts.empty;
        continue;
      }
      document.name = name;
      if (lines) document.name += fmt::format(":{}", part);
      if (!lines && part > 1) document.name += fmt::format("#{}", part);
      if (well_formed_bytes(document.text) < document.text.size() && counts.not_utf8++ == 0) {
        counts.first_not_utf8 = document.name;
      }
      ++counts.documents;
      counts.bytes += static_cast<std::int64_t>(document.text.size());
      of_input += static_cast<std::int64_t>(document.text.size());
      if (input_is_enough()) close();
      return true;
    }
  }
};

CorpusReader::CorpusReader(CorpusOptions options) {
  if (options.document_bytes <= 0) fail(ExitCode::usage, "a document must be allowed at least one byte");
  state_ = std::make_unique<State>(std::move(options));
}

CorpusReader::~CorpusReader() = default;
bool CorpusReader::next(Document& document) { return state_->next(document); }
const CorpusCounts& CorpusReader::counts() const { return state_->counts; }

std::int64_t CorpusReader::read_bytes() const { return state_->counts.read_bytes + state_->read_bytes_of_file(); }
const LinesAcross& CorpusReader::lines_across() const { return state_->across; }

std::vector<std::string> doubtful_inputs(const CorpusOptions& options) {
  CorpusOptions files = options;
  std::erase_if(files.inputs, [](const fs::path& input) { return type_of(input) != fs::file_type::regular; });
  std::map<fs::path, std::string> piped;
  for (const auto& pipe : options.piped) piped.emplace(walked_path(pipe.first), pipe.second);
  std::vector<std::string> doubts;
  CorpusWalk walk(files);
  while (const std::optional<WalkedFile> next = walk.next()) {
    if (next->kind != WalkedFile::Kind::wanted) continue;
    const auto pipe = piped.find(next->path);
    const bool is_pipe = pipe != piped.end();
    const std::string plain = plain_name(next->path);
    const InputName source{plain, is_pipe};
    try {
      InputFile file(next->path, options.unpack);
      const std::string_view front = file.ahead(kFileKindBytes);
      if (!file_kind(front).is_text() || holds_lines_of_json(source, front, options.fields)) continue;
      const std::string doubt = doubt_of(source, front, options.fields);
      if (doubt.empty()) continue;
      doubts.push_back(
          fmt::format("{}: taken as plain text, but {}", is_pipe ? pipe->second : next->path.string(), doubt));
    } catch (const Error&) {  // whoever reads it says what is wrong
    }
  }
  return doubts;
}

std::int64_t corpus_bytes(const CorpusOptions& options) {
  CorpusWalk walk(options);
  std::int64_t bytes = 0;
  while (const std::optional<WalkedFile> next = walk.next()) bytes += next->bytes;
  return bytes;
}

}  // namespace shoestring
