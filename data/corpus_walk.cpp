#include "data/corpus_walk.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <system_error>
#include <utility>

#include "data/unpack.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return text;
}

// "h", ".h" and "*.h" mean the same.
std::string ending_of(const std::string& word) {
  const std::size_t first = word.find_first_not_of(" *.");
  if (first == std::string::npos) fail(ExitCode::usage, "'{}' is no file ending; write .txt,.md", word);
  return "." + lower(word.substr(first, word.find_last_not_of(' ') - first + 1));
}

std::string why_not_read(const fs::path& input, const fs::file_status& status, const std::error_code& error) {
  switch (status.type()) {
    case fs::file_type::fifo: return "is a pipe; write its text to a file first and name that";
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

fs::path walked_path(const fs::path& input) {
  if (fs::is_directory(input) || !input.has_filename()) return fs::canonical(input);
  return fs::canonical(fs::absolute(input).parent_path()) / input.filename();
}

std::string plain_name(const fs::path& file) {
  const std::string name = lower(file.filename().string());
  return std::string(without_packing(name));
}

bool holds_lines(std::string_view name) { return name.ends_with(".jsonl") || name.ends_with(".ndjson"); }

CorpusWalk::CorpusWalk(const CorpusOptions& options) {
  Level inputs;
  for (const fs::path& input : options.inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (!fs::is_directory(status) && !fs::is_regular_file(status)) {
      fail(ExitCode::missing_input, "{}: {}", input.string(), why_not_read(input, status, error));
    }
    inputs.push_back(walked_path(input));
  }
  for (const std::string& word : options.extensions) endings_.push_back(ending_of(word));
  for (const auto& pipe : options.piped) piped_.push_back(walked_path(pipe.first));
  std::reverse(inputs.begin(), inputs.end());
  levels_.push_back(std::move(inputs));
}

// A file of lines that was itself asked for is wanted whatever its ending; within folders the endings decide.
bool CorpusWalk::wanted(const fs::path& candidate, bool named) const {
  const std::string packed = lower(candidate.filename().string());
  const std::string_view name = without_packing(packed);
  if (endings_.empty() || (named && holds_lines(name))) return true;
  if (std::find(piped_.begin(), piped_.end(), candidate) != piped_.end()) return true;
  return std::any_of(endings_.begin(), endings_.end(), [&](const std::string& ending) {
    return (name.size() > ending.size() && name.ends_with(ending)) ||
           (packed.size() > ending.size() && packed.ends_with(ending));
  });
}

WalkedFile CorpusWalk::walked(fs::path entry, fs::file_status status, bool named) {
  WalkedFile file{WalkedFile::Kind::wanted, std::move(entry), input_, bytes_, 0};
  if (fs::is_symlink(status)) {
    file.kind = WalkedFile::Kind::link;
  } else if (!fs::is_regular_file(status)) {
    file.kind = WalkedFile::Kind::special;
  } else if (!wanted(file.path, named)) {
    file.kind = WalkedFile::Kind::other_extension;
  } else {
    std::error_code gone;  // opening it will say so
    const std::uintmax_t size = fs::file_size(file.path, gone);
    if (!gone) file.bytes = static_cast<std::int64_t>(size);
    bytes_ += file.bytes;
  }
  return file;
}

std::optional<WalkedFile> CorpusWalk::next() {
  while (!levels_.empty()) {
    if (levels_.back().empty()) {
      levels_.pop_back();
      continue;
    }
    fs::path entry = std::move(levels_.back().back());
    levels_.back().pop_back();
    const bool named = levels_.size() == 1;  // an input: what a link leads to was asked for
    if (named) ++input_;
    std::error_code error;
    const fs::file_status status = named ? fs::status(entry, error) : fs::symlink_status(entry, error);
    if (status.type() != fs::file_type::not_found && error) {
      fail(ExitCode::io, "{}: cannot be looked at: {}", entry.string(), system_reason(error.value()));
    }
    if (!fs::is_directory(status)) return walked(std::move(entry), status, named);
    Level entries = list_directory(entry);
    std::reverse(entries.begin(), entries.end());
    levels_.push_back(std::move(entries));
  }
  return std::nullopt;
}

}  // namespace shoestring
