#include "data/corpus.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBinaryProbeBytes = 8192;
constexpr std::size_t kLineLimit = std::size_t{64} << 20;
constexpr std::size_t kLineChunk = std::size_t{64} << 10;

// The entries of one folder still to visit, last one first.
using Level = std::vector<fs::path>;

Level sorted_entries(const fs::path& folder) {
  Level entries = list_directory(folder);
  std::reverse(entries.begin(), entries.end());
  return entries;
}

bool is_jsonl(const fs::path& file) {
  std::string extension = file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return extension == ".jsonl";
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

  bool wanted(const fs::path& candidate) const {
    if (is_jsonl(candidate) || options.extensions.empty()) return true;
    return std::find(options.extensions.begin(), options.extensions.end(), candidate.extension().string()) !=
           options.extensions.end();
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
      std::error_code error;
      const fs::file_status status = fs::symlink_status(entry, error);
      if (status.type() != fs::file_type::not_found && error) {
        fail(ExitCode::io, "{}: cannot be looked at: {}", entry.string(), error.message());
      }
      if (fs::is_directory(status)) {
        levels.push_back(sorted_entries(entry));
      } else if (fs::is_regular_file(status) && wanted(entry)) {
        open(entry);
        return true;
      }
    }
    return false;
  }

  void open(const fs::path& entry) {
    path = entry;
    file = std::ifstream(entry, std::ios::binary);
    if (!file) fail(ExitCode::io, "{}: cannot be opened: {}", entry.string(), std::strerror(errno));
    jsonl = is_jsonl(entry);
    part = 0;
    carry.clear();
    ++counts.files;
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

  bool next_line(std::string& text) {
    std::string line;
    while (read_line(line)) {
      ++part;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      auto found =
          parse_json_text_field(line, options.jsonl_field, fmt::format("{}:{}: is not JSON", path.string(), part));
      if (!found) {
        fail(ExitCode::bad_data, "{}:{}: is not a JSON object with a text field \"{}\"", path.string(), part,
             options.jsonl_field);
      }
      text = *std::move(found);
      return true;
    }
    return false;
  }

  bool next(Document& document) {
    while (true) {
      if (options.limit_bytes > 0 && counts.bytes >= options.limit_bytes) return false;
      if (!file.is_open()) {
        if (!open_next()) return false;
      }
      if (!(jsonl ? next_line(document.text) : next_part(document.text))) {
        file.close();
        continue;
      }
      if (!jsonl && part == 1 && document.text.substr(0, kBinaryProbeBytes).find('\0') != std::string::npos) {
        ++counts.binary_files;
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
      fail(ExitCode::missing_input, "{}: there is no such file or folder{}", input.string(),
           error && error != std::errc::no_such_file_or_directory ? ": " + error.message() : std::string());
    }
    inputs.push_back(fs::canonical(input));
  }
  std::reverse(inputs.begin(), inputs.end());
  state_->levels.push_back(std::move(inputs));
}

CorpusReader::~CorpusReader() = default;
bool CorpusReader::next(Document& document) { return state_->next(document); }
const CorpusCounts& CorpusReader::counts() const { return state_->counts; }

}  // namespace shoestring
