// The program: finds the command, runs it, turns what it throws into a message and an exit code.
#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "core/recipe/names.h"
#include "core/recipe/scan.h"
#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/file.h"
#include "parallel/communicator_mpi.h"
#include "tools/commands.h"
#include "tools/messages.h"

namespace shoestring {
namespace {

struct Command {
  std::string name;
  std::string summary;
  int (*run)(const Words&);
  bool speaks = true;              ///< what it prints is what it is called for; otherwise what it leaves on disk
  bool alone = false;              ///< the work of one process, also where a launcher starts several
  std::string_view together = {};  ///< the option under which these work together all the same
};

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
      {"train", "train a recipe, or go on with its run; under mpirun with one rank per device", train_command, false},
      {"plan", "what a recipe is: parameters, FLOPs and bytes, and what its budget buys", plan_command, true, true,
       "--measure"},
      {"explain", "every key of a recipe: value, where it came from, what it means", explain_command, true, true},
      {"report", "what a run cost and what it bought", report_command, true, true},
      {"sample", "text from a run or a model folder", sample_command, true, true},
      {"chat", "talk with a run or a model folder in a terminal, or through pipes", chat_command, true, true},
      {"evaluate", "how a model answers a suite of questions, as lm-evaluation-harness scores it", evaluate_command,
       true, true},
      {"verify", "whether a recipe trains the same, to the bit, under every layout", verify_command},
      {"export", "a checkpoint or model folder in another number format, for other readers", export_command, true,
       true},
      {"inspect", "what model a folder holds, and what each reader makes of it", inspect_command, true, true},
      {"data build", "folders of text or JSONL into token shards", data_build_command, false},
      {"data inspect", "what a shard holds", data_inspect_command, true, true},
      {"data verify", "check every block of a shard", data_verify_command, true, true},
      {"bench", "time the kernels and the loader as ratios to a calibration or a rival", bench_command, true, true,
       "--calibrate"},
  };
  return all;
}

void print_help() {
  fmt::print(
      "Shoestring trains large language models in low precision inside a budget of GPU-hours.\n\n"
      "usage: shoestring COMMAND ... (--help behind a command tells more)\n\n");
  for (const Command& command : commands()) fmt::print("  {:<14} {}\n", command.name, command.summary);
}

[[noreturn]] void fail_unprinted(int error) {
  fail(ExitCode::io, "standard output could not be written: {}{}", system_reason(error),
       error == EBADF ? "; it is closed: let it lead to a file or a pipe" : "");
}

void check_printed() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) fail_unprinted(errno);
}

/// Whether a launcher (mpirun, srun) started this process beside another one that does the command's work. Of all that
/// it started the second says so.
bool leaves_it_to_another(const Command& command, const Words& words) {
  const bool together = std::any_of(words.begin(), words.end(), [&](const std::string& word) {
    return !command.together.empty() && word.substr(0, word.find('=')) == command.together;
  });
  if (!command.alone || together) return false;
  const auto variable = [](const char* name) -> const char* { return std::getenv(name); };
  const std::vector<std::string> names = later_in_launch(variable);
  if (names.empty()) return false;
  if (std::string_view(variable(names[0].c_str())) == "1") {
    say("shoestring {}: the first process of this launch does it, the others have nothing to do; to have each do work "
        "of its own, unset {}",
        command.name, fmt::join(names, " and "));
  }
  return true;
}

int run_command(const Command& command, const Words& words) {
  if (leaves_it_to_another(command, words)) return 0;
  int code = 0;
  try {
    code = command.run(words);
  } catch (const std::system_error& error) {  // fmt's, when a full buffer cannot be written
    if (std::ferror(stdout) == 0) throw;
    fail_unprinted(error.code().value());
  }
  const bool helps = std::find_if(words.begin(), words.end(), [](const std::string& word) {
                       return word == "--help" || word == "-h";
                     }) != words.end();
  if (command.speaks || helps) check_printed();
  return code;
}

int run(const Words& words) {
  const auto printed = [](int code) {
    check_printed();
    return code;
  };
  if (words.size() > 1 && words[0] == "help") {  // of a command
    Words asked(words.begin() + 1, words.end());
    asked.emplace_back("--help");
    return run(asked);
  }
  if (words.empty() || words[0] == "help" || words[0] == "--help" || words[0] == "-h") {
    print_help();
    return printed(words.empty() ? static_cast<int>(ExitCode::usage) : 0);
  }
  if (words[0] == "--version" || words[0] == "version") {
    fmt::print("shoestring {} ({})\n", SHOESTRING_VERSION, cpu_features().to_string());
    return printed(0);
  }
  if (words[0] == "completion") {
    std::vector<std::string> completed;
    for (const Command& command : commands()) completed.push_back(command.name);
    return printed(completion_command({words.begin() + 1, words.end()}, completed));
  }
  const std::string pair = words.size() > 1 ? words[0] + " " + words[1] : words[0];
  std::vector<std::string_view> names;
  for (const Command& command : commands()) {
    if (command.name == words[0]) return run_command(command, {words.begin() + 1, words.end()});
    if (command.name == pair) return run_command(command, {words.begin() + 2, words.end()});
    names.push_back(command.name);
  }
  const std::string asked = words[0] == "data" ? pair : words[0];
  const std::string_view near = nearest_word(asked, names);
  fail(ExitCode::usage, "unknown command {}{}", quote_name(asked),
       near.empty() ? "; 'shoestring help' lists them" : fmt::format("; did you mean '{}'?", near));
}

/// A file opened later must not take the number of a standard stream that is closed: what is printed would go into it.
/// In place of standard output stands what cannot be written, so that the loss of what is printed is known.
void open_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) >= 0) continue;
    ::open("/dev/null", stream == STDERR_FILENO ? O_WRONLY : O_RDONLY);  // takes the lowest free number: this one
  }
}

/// A thread that outgrows its stack ends the process by a signal. All threads have what the limit says.
void check_stack() {
  constexpr rlim_t kLeast = rlim_t{256} << 10;  // a tokenizer is trained, and a run goes on, with half of it
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur >= kLeast) return;
  fail(ExitCode::io, "the stack of a thread: the system allows {} KiB, {} are needed; raise `ulimit -s`",
       limit.rlim_cur >> 10, kLeast >> 10);
}

}  // namespace
}  // namespace shoestring

int main(int count, char** arguments) {
  shoestring::open_closed_streams();
  std::signal(SIGXFSZ, SIG_IGN);  // a write past the limit on file sizes fails with its error
  try {
    shoestring::check_stack();
    return shoestring::run({arguments + 1, arguments + count});
  } catch (const std::exception& exception) {
    const shoestring::Error error = shoestring::as_error(exception);
    shoestring::say("shoestring: {}", error.what());
    return static_cast<int>(error.code());
  }
}
