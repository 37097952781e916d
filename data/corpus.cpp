#include "data/corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>

#include "data/file_kind.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLineLimit = std::size_t{64} << 20;

// The entries of one folder still to visit, last one first.
using Level = std::vector<fs::path>;

Level sorted_entries(const fs::path& folder) {
  Level entries = list_directory(folder);
  std::reverse(entries.begin(), entries.end());
  return entries;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return text;
}

// Of a name in small letters without what says how the file is packed.
bool holds_lines(std::string_view name) { return name.ends_with(".jsonl") || name.ends_with(".ndjson"); }
// C4 calls its lines of JSON so; elsewhere it is one value over many lines.
bool may_hold_lines(std::string_view name) { return name.ends_with(".json"); }

// "h", ".h" and "*.h" mean the same.
std::string ending_of(const std::string& word) {
  const std::size_t first = word.find_first_not_of(" *.");
  if (first == std::string::npos) fail(ExitCode::usage, "'{}' is no file ending; write .txt,.md", word);
  return "." + lower(word.substr(first, word.find_last_not_of(' ') - first + 1));
}

// A named input as it is walked: the folders on the way resolved, the name kept, since it says what the file is.
fs::path input_path(const fs::path& input) {
  if (fs::is_directory(input) || !input.has_filename()) return fs::canonical(input);
  return fs::canonical(fs::absolute(input).parent_path()) / input.filename();
}

std::string why_not_read(const fs::path& input, const fs::file_status& status, const std::error_code& error) {
  switch (status.type()) {
    case fs::file_type::fifo:
      return "is a pipe, and text is read more than once: write it to a file first and name that";
    case fs::file_type::socket:
    case fs::file_type::block:
    case fs::file_type::character: return "is a device or socket, not a file or folder";
    default: break;
  }
  if (error && error != std::errc::no_such_file_or_directory)
    return "there is no such file or folder: " + system_reason(error.value());
  return fs::is_symlink(fs::symlink_status(input))
             ? "is a link that leads nowhere; look whether what it leads to is mounted"
             : "there is no such file or folder; look at its spelling, and whether its disk is mounted";
}

}  // namespace

struct CorpusReader::State {
  CorpusOptions options;
  CorpusCounts counts;
  std::vector<Level> levels;      // the walk: deepest last
  std::optional<InputFile> file;  // the one being read
  bool lines = false;             // each is a document
  std::int64_t part = 0;          // part or line of it
  std::string first_bad;          // what is wrong with the first bad line

  bool wanted(const fs::path& candidate) const {
    const std::string packed = lower(candidate.filename().string());
    const std::string_view name = without_packing(packed);
    if (holds_lines(name) || options.extensions.empty()) return true;
    return std::any_of(options.extensions.begin(), options.extensions.end(), [&](const std::string& ending) {
      return (name.size() > ending.size() && name.ends_with(ending)) ||
             (packed.size() > ending.size() && packed.ends_with(ending));
    });
  }

  // The next file of the walk that is wanted; empty at its end.
  fs::path next_file() {
    while (!levels.empty()) {
      if (levels.back().empty()) {
        levels.pop_back();
        continue;
      }
      const fs::path entry = std::move(levels.back().back());
      levels.back().pop_back();
      const bool named = levels.size() == 1;  // an input: what a link leads to was asked for
      std::error_code error;
      const fs::file_status status = named ? fs::status(entry, error) : fs::symlink_status(entry, error);
      if (status.type() != fs::file_type::not_found && error) {
        fail(ExitCode::io, "{}: cannot be looked at: {}", entry.string(), system_reason(error.value()));
      }
      if (fs::is_directory(status)) {
        levels.push_back(sorted_entries(entry));
      } else if (fs::is_symlink(status)) {
        ++counts.links;
      } else if (!fs::is_regular_file(status)) {
        ++counts.special_files;
      } else if (!wanted(entry)) {
        ++counts.other_extensions;
      } else {
        return entry;
      }
    }
    return {};
  }

  // False at the end of the walk.
  bool open_next() {
    while (true) {
      const fs::path next = next_file();
      if (next.empty()) return false;
      if (open(next)) return true;
    }
  }

  // False for a file that is passed over, which is counted.
  bool open(const fs::path& entry) {
    file.emplace(entry, options.unpack);
    part = 0;
    ++counts.files;
    if (!file->packing().empty()) ++counts.packed_files;
    const std::string_view front = file->ahead(kFileKindBytes);
    const std::string packed = lower(entry.filename().string());
    const std::string_view name = without_packing(packed);
    lines = holds_lines(name) || (may_hold_lines(name) && begins_with_line(front));
    const FileKind kind = file_kind(front);
    if (kind.is_text() && !front.empty()) return true;
    if (!kind.is_text() && lines) {
      fail(ExitCode::bad_data, "{}: is named as lines of JSON, but is {}: {}", entry.string(), kind.name, kind.remedy);
    }
    ++(kind.is_text() ? counts.empty : counts.kinds_of_file[std::string(kind.name)]);
    close();
    return false;
  }

  void close() {
    counts.read_bytes += read_bytes_of_file();
    file.reset();
  }
  std::int64_t read_bytes_of_file() const { return file ? file->read_bytes() : 0; }

  // Whether the first line is an object with the text, where the name leaves that open.
  bool begins_with_line(std::string_view front) const {
    const std::size_t end = front.find('\n');
    if (end == std::string_view::npos && front.size() >= kFileKindBytes) {
      return front.find_first_not_of(" \t\r") == front.find('{') && front.find('{') != std::string_view::npos;
    }
    try {
      return text_of_line(front.substr(0, end), options.fields, "").text.has_value();
    } catch (const Error&) {
      return false;
    }
  }

  // Up to document_bytes, cut behind the last line end unless the file ends there. False at its end.
  bool next_part(std::string& text) {
    const auto limit = static_cast<std::size_t>(options.document_bytes);
    std::string_view next = file->ahead(limit + 1);
    if (next.size() > limit) {
      next = next.substr(0, limit);
      const std::size_t line = next.rfind('\n');
      if (line != std::string_view::npos) next = next.substr(0, line + 1);
    }
    text.assign(next);
    file->consume(next.size());
    ++part;
    return !text.empty();
  }

  // One line without its end, never holding more than kLineLimit of it.
  bool read_line(std::string& line) {
    std::string_view next = file->ahead();
    if (next.empty()) return false;
    std::size_t searched = 0;
    std::size_t end = next.find('\n');
    while (end == std::string_view::npos) {
      if (next.size() > kLineLimit) {
        fail(ExitCode::bad_data, "{}:{}: a line exceeds {} bytes", file->path().string(), part + 1, kLineLimit);
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

  // A line's text; nothing where it is not wanted, or is bad and may be.
  std::optional<std::string> text_of(const std::string& line) {
    const std::string place = fmt::format("{}:{}", file->path().string(), part);
    try {
      LineText found = text_of_line(line, options.fields, place);
      if (!found.wanted) {
        ++counts.unwanted_lines;
        return std::nullopt;
      }
      if (!found.text) {
        fail(ExitCode::bad_data, "{}: is not a JSON object with a text field \"{}\"; name another with --field", place,
             fmt::join(options.fields.text, ","));
      }
      return std::move(found.text);
    } catch (const Error& error) {
      if (options.skip_bad <= 0) throw;
      if (counts.bad_lines++ == 0) first_bad = error.what();
      return std::nullopt;
    }
  }

  bool next_line(std::string& text) {
    std::string line;
    while (read_line(line)) {
      ++part;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      ++counts.lines;
      auto found = text_of(line);
      if (!found) continue;
      text = *std::move(found);
      return true;
    }
    return false;
  }

  // At the end of all: a share can only be judged by the whole.
  void check_bad_lines() const {
    if (static_cast<double>(counts.bad_lines) <= options.skip_bad * static_cast<double>(counts.lines)) return;
    fail(ExitCode::bad_data,
         "{} of {} lines of JSONL are bad, more than the share of {} that may be skipped; the first: {}",
         counts.bad_lines, counts.lines, options.skip_bad, first_bad);
  }

  bool next(Document& document) {
    while (true) {
      const bool enough = options.limit_bytes > 0 && counts.bytes >= options.limit_bytes;
      if (enough || (!file && !open_next())) {
        check_bad_lines();
        return false;
      }
      if (!(lines ? next_line(document.text) : next_part(document.text))) {
        close();
        continue;
      }
      if (document.text.empty()) {
        ++counts.empty;
        continue;
      }
      document.name = file->path().string();
      if (lines) document.name += fmt::format(":{}", part);
      if (!lines && part > 1) document.name += fmt::format("#{}", part);
      ++counts.documents;
      counts.bytes += static_cast<std::int64_t>(document.text.size());
      return true;
    }
  }
};

CorpusReader::CorpusReader(CorpusOptions options) : state_(std::make_unique<State>()) {
  state_->options = std::move(options);
  if (state_->options.document_bytes <= 0) fail(ExitCode::usage, "a document must be allowed at least one byte");
  Level inputs;
  for (const fs::path& input : state_->options.inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (!fs::is_directory(status) && !fs::is_regular_file(status)) {
      fail(ExitCode::missing_input, "{}: {}", input.string(), why_not_read(input, status, error));
    }
    inputs.push_back(input_path(input));
  }
  for (std::string& extension : state_->options.extensions) extension = ending_of(extension);
  std::reverse(inputs.begin(), inputs.end());
  state_->levels.push_back(std::move(inputs));
}

std::int64_t CorpusCounts::binary_files() const {
  std::int64_t all = 0;
  for (const auto& kind : kinds_of_file) all += kind.second;
  return all;
}

std::vector<std::string> passed_over(const CorpusCounts& counts) {
  std::vector<std::string> all;
  const auto tell = [&](std::int64_t count, std::string_view one, std::string_view many, std::string_view what) {
    if (count > 0) all.push_back(fmt::format("{} {}: {}", count, count == 1 ? one : many, what));
  };
  tell(counts.links, "link", "links", "not followed in folders; name what they lead to as inputs");
  for (const auto& [kind, number] : counts.kinds_of_file) {
    tell(number, kind + " file", kind + " files", remedy_of(kind));
  }
  tell(counts.empty, "empty document", "empty documents", "they hold no text");
  tell(counts.other_extensions, "file of another ending", "files of other endings", "--extensions leaves them out");
  tell(counts.special_files, "pipe, socket or device", "pipes, sockets or devices", "only files are read");
  tell(counts.unwanted_lines, "line of JSONL", "lines of JSONL", "not as --where says");
  tell(counts.bad_lines, "bad line of JSONL", "bad lines of JSONL", "skipped, as --skip-bad allows");
  return all;
}

CorpusReader::~CorpusReader() = default;
bool CorpusReader::next(Document& document) { return state_->next(document); }
const CorpusCounts& CorpusReader::counts() const { return state_->counts; }

std::int64_t CorpusReader::rest_bytes() {
  std::int64_t bytes = 0;
  while (true) {
    const fs::path next = state_->next_file();
    if (next.empty()) return bytes;
    std::error_code gone;  // reading will say so
    const std::uintmax_t size = fs::file_size(next, gone);
    if (!gone) bytes += static_cast<std::int64_t>(size);
  }
}
std::int64_t CorpusReader::read_bytes() const { return state_->counts.read_bytes + state_->read_bytes_of_file(); }

}  // namespace shoestring
