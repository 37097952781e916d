#include "tools/bench/rival_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/thread.h"

namespace shoestring {
namespace {

/// Becomes the child; only what is safe after a fork of a process with threads. `words` and `environment` are ready.
[[noreturn]] void become(char* const* words, char* const* environment, const char* log, int input, int output) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // an interrupted bench leaves nobody behind
  const int errors = ::open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (errors >= 0) ::dup2(errors, 2);
  ::dup2(input >= 0 ? input : ::open("/dev/null", O_RDONLY), 0);
  ::dup2(output >= 0 ? output : errors, 1);
  ::execvpe(words[0], words, environment);
  ::_exit(127);
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (const std::string& text : texts) all.push_back(const_cast<char*>(text.c_str()));
  all.push_back(nullptr);
  return all;
}

pid_t start(const ChildCommand& command, int input, int output) {
  std::vector<std::string> environment = command.environment;
  for (char** entry = environ; *entry != nullptr; ++entry)
    environment.emplace_back(*entry);  // the first of a name wins
  const std::vector<char*> words = pointers(command.words);
  const std::vector<char*> settings = pointers(environment);
  const pid_t pid = ::fork();
  if (pid < 0) {
    const int reason = errno;  // before thread_limits() reads files
    fail(ExitCode::io, "cannot start {}: {}; {}", command.words[0], system_reason(reason), thread_limits());
  }
  if (pid == 0) become(words.data(), settings.data(), command.log.c_str(), input, output);
  return pid;
}

int exit_code(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

/// VmHWM of a living process, 0 when it cannot be read.
long long high_water_bytes(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::strtoll(line.c_str() + 6, nullptr, 10) * 1024;
  }
  return 0;
}

std::string tail_of(const std::string& log) {
  std::ifstream file(log);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  return text.substr(text.size() > 600 ? text.size() - 600 : 0);
}

}  // namespace

int run_child(const ChildCommand& command) {
  int status = 0;
  ::waitpid(start(command, -1, -1), &status, 0);
  return exit_code(status);
}

int run_child(const ChildCommand& command, long long& peak_bytes) {
  constexpr useconds_t kPause = 5000;
  const pid_t pid = start(command, -1, -1);
  peak_bytes = 0;
  int status = 0;
  // Before exec the child is a copy of this process: its mark is the last one seen, not the highest.
  while (::waitpid(pid, &status, WNOHANG) == 0) {
    if (const long long now = high_water_bytes(pid); now > 0) peak_bytes = now;
    ::usleep(kPause);
  }
  return exit_code(status);
}

RivalProcess::RivalProcess(ChildCommand command) : command_(std::move(command)) {
  std::array<int, 2> down{};
  std::array<int, 2> up{};
  if (::pipe2(down.data(), O_CLOEXEC) != 0 || ::pipe2(up.data(), O_CLOEXEC) != 0) {
    fail(ExitCode::io, "no more pipes: {}", system_reason(errno));
  }
  ::signal(SIGPIPE, SIG_IGN);  // a dead child is told apart by its answers
  pid_ = start(command_, down[0], up[1]);
  ::close(down[0]);
  ::close(up[1]);
  to_ = ::fdopen(down[1], "w");
  from_ = ::fdopen(up[0], "r");
  const std::string line = next_line();
  constexpr std::string_view kReady = "ready ";
  if (!line.starts_with(kReady)) {
    fail(ExitCode::missing_input, "{} does not run as a rival: {}\n{}", command_.words[0], line, tail_of(command_.log));
  }
  name_ = line.substr(kReady.size());
}

RivalProcess::~RivalProcess() {
  std::fclose(to_);  // its input ends, and so does it
  std::fclose(from_);
  int status = 0;
  ::waitpid(pid_, &status, 0);
}

std::string RivalProcess::next_line() {
  std::array<char, 512> text{};
  if (std::fgets(text.data(), static_cast<int>(text.size()), from_) == nullptr) return {};
  std::string line = text.data();
  line.erase(std::find(line.begin(), line.end(), '\n'), line.end());
  return line;
}

double RivalProcess::step() {
  std::fputs("step\n", to_);
  std::fflush(to_);
  const std::string line = next_line();
  const double seconds = std::strtod(line.c_str(), nullptr);
  if (seconds <= 0) {
    fail(ExitCode::missing_input, "{} answers \"{}\" instead of seconds\n{}", command_.words[0], line,
         tail_of(command_.log));
  }
  return seconds;
}

}  // namespace shoestring
