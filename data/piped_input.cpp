#include "data/piped_input.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStandardInput = "-";
constexpr std::size_t kChunk = std::size_t{256} << 10;
constexpr int kLookMilliseconds = 200;  // between two looks at whether to stop, while nothing comes

std::string shown(const fs::path& input) { return input == kStandardInput ? "standard input" : input.string(); }

// The next bytes; 0 at the end, -1 while there are none or a signal came. Of a pipe that nobody has opened for writing
// yet poll says nothing, where a read would call it the end.
ssize_t read_some(int from, std::vector<char>& to, const std::string& name) {
  pollfd ready{from, POLLIN, 0};
  const int looked = ::poll(&ready, 1, kLookMilliseconds);
  if (looked == 0 || (looked < 0 && errno == EINTR)) return -1;
  if (looked < 0) fail(ExitCode::io, "{}: waiting for it failed: {}", name, system_reason(errno));
  const ssize_t got = ::read(from, to.data(), to.size());
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return -1;
  if (got < 0) fail(ExitCode::io, "{}: reading it failed: {}", name, system_reason(errno));
  return got;
}

// `waits` is said once, where at first nothing comes.
void copy(int from, const std::string& name, const fs::path& path, const BuildHooks& hooks, std::string waits) {
  const std::string doing = "copying " + name;
  BuildPace pace(hooks, doing, 0);
  FileWriter file(path);
  std::vector<char> bytes(kChunk);
  for (ssize_t got = -1; got != 0;) {
    got = read_some(from, bytes, name);
    if (got > 0) file.write(bytes.data(), static_cast<std::size_t>(got));
    if (got < 0 && !waits.empty()) hooks.say(waits);
    waits.clear();
    pace.at(file.bytes());
  }
  file.finish();
}

}  // namespace

bool is_pipe(const fs::path& input) {
  std::error_code missing;
  return input == kStandardInput || fs::is_fifo(input, missing);
}

void name_pipes(CorpusOptions& corpus, const fs::path& folder) {
  int number = 0;
  for (fs::path& input : corpus.inputs) {
    if (!is_pipe(input)) continue;
    const fs::path path = folder / fmt::format("pipe.{}", number++);
    corpus.piped.emplace(path, shown(input));
    input = path;
  }
}

void copy_pipes(const CorpusOptions& asked, const CorpusOptions& corpus, const BuildHooks& hooks) {
  if (std::count(asked.inputs.begin(), asked.inputs.end(), kStandardInput) > 1) {
    fail(ExitCode::usage, "standard input (-) can be read once only");
  }
  for (std::size_t at = 0; at < asked.inputs.size(); ++at) {
    const fs::path& input = asked.inputs[at];
    const auto pipe = corpus.piped.find(corpus.inputs[at]);
    if (pipe == corpus.piped.end()) continue;
    if (input == kStandardInput) {
      if (::isatty(STDIN_FILENO) == 1) {
        fail(ExitCode::usage, "standard input (-) is a terminal; pipe the text into the command");
      }
      copy(STDIN_FILENO, pipe->second, pipe->first, hooks, "");
      continue;
    }
    // Otherwise open itself would wait for a writer, deaf to a request to stop.
    const FileHandle opened(::open(input.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!opened.open()) fail(ExitCode::io, "{}: cannot be opened: {}", pipe->second, system_reason(errno));
    copy(opened.get(), pipe->second, pipe->first, hooks, "waiting for a writer of " + pipe->second);
  }
}

}  // namespace shoestring
