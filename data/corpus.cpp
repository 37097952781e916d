#include "data/corpus.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>

#include "data/file_kind.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLineLimit = std::size_t{64} << 20;
constexpr std::size_t kLineChunk = std::size_t{64} << 10;

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

bool is_jsonl(const fs::path& file) { return lower(file.extension().string()) == ".jsonl"; }

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
    return "there is no such file or folder: " + error.message();
  return fs::is_symlink(fs::symlink_status(input)) ? "is a link that leads nowhere" : "there is no such file or folder";
}

}  // namespace

struct CorpusReader::State {
  CorpusOptions options;
  CorpusCounts counts;
  std::vector<Level> levels;  // the walk: deepest last
  fs::path path;              // the file being read
  std::ifstream file;
  bool jsonl = false;
  std::int64_t part = 0;  // part or line of it
  std::string carry;      // text read past the last cut
  std::string buffer;     // for reading
  std::string first_bad;  // what is wrong with the first bad line

  bool wanted(const fs::path& candidate) const {
    if (is_jsonl(candidate) || options.extensions.empty()) return true;
    const std::string name = lower(candidate.filename().string());
    return std::any_of(options.extensions.begin(), options.extensions.end(), [&](const std::string& ending) {
      return name.size() > ending.size() && name.ends_with(ending);
    });
  }

  // Moves on to the next file of the walk; false at its end.
  bool open_next() {
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
        fail(ExitCode::io, "{}: cannot be looked at: {}", entry.string(), error.message());
      }
      if (fs::is_directory(status)) {
        levels.push_back(sorted_entries(entry));
      } else if (fs::is_symlink(status)) {
        ++counts.links;
      } else if (!fs::is_regular_file(status)) {
        ++counts.special_files;
      } else if (!wanted(entry)) {
        ++counts.other_extensions;
      } else if (open(entry)) {
        return true;
      }
    }
    return false;
  }

  // False for a file that is passed over, which is counted.
  bool open(const fs::path& entry) {
    path = entry;
    file = std::ifstream(entry, std::ios::binary);
    if (!file) fail(ExitCode::io, "{}: cannot be opened: {}", entry.string(), std::strerror(errno));
    jsonl = is_jsonl(entry);
    part = 0;
    carry.clear();
    ++counts.files;
    buffer.resize(std::max(buffer.size(), kFileKindBytes));
    file.read(buffer.data(), kFileKindBytes);
    check_read();
    const std::string_view front(buffer.data(), static_cast<std::size_t>(file.gcount()));
    const FileKind kind = file_kind(front);
    if (kind.is_text() && !front.empty()) {
      file.clear();
      file.seekg(0);
      return true;
    }
    if (!kind.is_text() && jsonl) {
      fail(ExitCode::bad_data, "{}: is named .jsonl, but is {}: {}", path.string(), kind.name, kind.remedy);
    }
    ++(kind.is_text() ? counts.empty : counts.kinds_of_file[std::string(kind.name)]);
    file.close();
    return false;
  }

  // A file that cannot be read on must not pass for one that ends here.
  void check_read() const {
    if (file.bad()) fail(ExitCode::io, "{}: reading it failed: {}", path.string(), std::strerror(errno));
  }

  // Reads up to document_bytes, cut behind the last line end unless the file ends there. False at its end.
  bool next_part(std::string& text) {
    const auto limit = static_cast<std::size_t>(options.document_bytes);
    text.assign(carry);
    carry.clear();
    if (text.size() < limit && file) {
      // By way of a buffer, so that a short file does not come with the capacity of the longest.
      buffer.resize(limit);
      file.read(buffer.data(), static_cast<std::streamsize>(limit - text.size()));
      check_read();
      text.append(buffer.data(), static_cast<std::size_t>(file.gcount()));
    }
    if (text.empty()) return false;
    const bool more = file && file.peek() != std::ifstream::traits_type::eof();
    check_read();
    if (more) {
      const std::size_t line = text.rfind('\n');
      if (line != std::string::npos && line + 1 < text.size()) {
        carry = text.substr(line + 1);
        text.resize(line + 1);
      }
    }
    ++part;
    return true;
  }

  // One line, never holding more than kLineLimit of it.
  bool read_line(std::string& line) {
    line.clear();
    buffer.resize(kLineChunk);
    while (true) {
      file.getline(buffer.data(), static_cast<std::streamsize>(buffer.size()));
      check_read();
      const bool ended = !file.fail() && !file.eof();  // by '\n', which counts but is not stored
      line.append(buffer.data(), static_cast<std::size_t>(file.gcount() - (ended ? 1 : 0)));
      if (line.size() > kLineLimit) {
        fail(ExitCode::bad_data, "{}:{}: a line exceeds {} bytes", path.string(), part + 1, kLineLimit);
      }
      const bool cut = file.fail() && !file.eof() && file.gcount() > 0;  // the buffer was full before the line's end
      if (!cut) return file.gcount() > 0 || !line.empty();
      file.clear();
    }
  }

  // A line's text, or nothing where it is bad and may be.
  std::optional<std::string> text_of(const std::string& line) {
    try {
      auto found =
          parse_json_text_field(line, options.jsonl_field, fmt::format("{}:{}: is not JSON", path.string(), part));
      if (!found) {
        fail(ExitCode::bad_data, "{}:{}: is not a JSON object with a text field \"{}\"; --field names another",
             path.string(), part, options.jsonl_field);
      }
      return found;
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
      if (enough || (!file.is_open() && !open_next())) {
        check_bad_lines();
        return false;
      }
      if (!(jsonl ? next_line(document.text) : next_part(document.text))) {
        file.close();
        continue;
      }
      if (document.text.empty()) {
        ++counts.empty;
        continue;
      }
      document.name = path.string();
      if (jsonl) document.name += fmt::format(":{}", part);
      if (!jsonl && part > 1) document.name += fmt::format("#{}", part);
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
  tell(counts.bad_lines, "bad line of JSONL", "bad lines of JSONL", "skipped, as --skip-bad allows");
  return all;
}

CorpusReader::~CorpusReader() = default;
bool CorpusReader::next(Document& document) { return state_->next(document); }
const CorpusCounts& CorpusReader::counts() const { return state_->counts; }

}  // namespace shoestring
