// shoestring chat RUN-OR-FOLDER
#include <fmt/core.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <optional>

#include "core/generation/chat_session.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tools/commands.h"
#include "tools/generation_options.h"
#include "tools/messages.h"
#include "tools/model_folder.h"

namespace shoestring {
namespace {

constexpr SamplingSettings kDefaults{.temperature = 0.7, .top_p = 0.95};
constexpr std::int64_t kContext = 4096;
constexpr std::size_t kMostMessageBytes = std::size_t{16} << 20;

std::atomic<bool> interrupted = false;  // a signal comes to any thread

/// While it lives, Ctrl-C sets `interrupted` and wakes whoever reads.
class Interruptible {
 public:
  Interruptible() {
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted = true; };
    sigaction(SIGINT, &action, &before_);
  }
  ~Interruptible() { sigaction(SIGINT, &before_, nullptr); }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

 private:
  struct sigaction before_ {};
};

/// Lines of standard input, however it brings them.
class Lines {
 public:
  /// Without its end; nothing where the input has ended. Ctrl-C forgets what is written of a line, and calls `again`.
  template <class Again>
  std::optional<std::string> next(const Again& again) {
    while (true) {
      if (const std::size_t end = pending_.find('\n'); end != std::string::npos) return taken(end, end + 1);
      char some[4096];
      const ssize_t count = read(STDIN_FILENO, some, sizeof some);
      if (count > 0) {
        pending_.append(some, static_cast<std::size_t>(count));
        if (pending_.size() > kMostMessageBytes) fail(ExitCode::usage, "a message of more than 16 MiB");
      } else if (count == 0) {
        if (pending_.empty()) return {};
        return taken(pending_.size(), pending_.size());
      } else if (errno == EINTR) {
        if (!interrupted) continue;
        interrupted = false;
        pending_.clear();
        again();
      } else {
        fail_io("standard input", "read");
      }
    }
  }

 private:
  std::string taken(std::size_t length, std::size_t with_end) {
    std::string line = pending_.substr(0, length);
    pending_.erase(0, with_end);
    if (line.ends_with('\r')) line.pop_back();
    return line;
  }
  std::string pending_;
};

ChatFormat format_of(const Arguments& arguments, const std::filesystem::path& folder) {
  if (arguments.has("format")) {
    const ChatFormat format = chat_format_named(arguments.text("format"));
    if (const std::string caveat = chat_template_caveat(folder, format); !caveat.empty()) say("{}", caveat);
    return format;
  }
  if (const std::optional<ChatFormat> format = chat_format_of(folder)) return *format;
  fail(ExitCode::bad_data,
       "{}: neither chat_template.jinja nor tokenizer_config.json holds a chat template whose turns are known here, to "
       "the letter; say what the model was trained on with --format (plain for none)",
       folder.string());
}

/// Whether every message was answered. A pipe has a line for each of them, an empty one for what was refused.
bool converse(ChatSession& session, bool terminal) {
  bool answered = true;
  const Interruptible guard;
  Lines lines;
  const auto ask = [&] {
    if (terminal) fmt::print("> ");
    std::fflush(stdout);
  };
  const auto ask_again = [&] {
    if (terminal) fmt::print("\n(Ctrl-D leaves)\n");
    ask();
  };
  for (ask(); const std::optional<std::string> line = lines.next(ask_again); ask()) {
    if (line->empty()) continue;
    if (*line == "/quit") return answered;
    if (*line == "/new") {
      session.forget();
      continue;
    }
    interrupted = false;
    try {
      const ChatSession::Reply reply = session.answer(*line, [](std::string_view piece) {
        fmt::print("{}", piece);
        std::fflush(stdout);
        return !interrupted;
      });
      fmt::print("\n");
      if (reply.end == GenerationEnd::caller) say("(stopped)");
      if (reply.end == GenerationEnd::length) say("(no room or leave for more: --context, --tokens)");
      if (reply.forgotten > 0) say("({} earlier messages had no room and are forgotten)", reply.forgotten);
    } catch (const Error& error) {
      if (error.code() != ExitCode::usage) throw;
      say("{}", error.what());  // of this message; the conversation goes on
      if (!terminal) fmt::print("\n");
      answered = false;
    }
    interrupted = false;
  }
  if (terminal) fmt::print("\n");
  return answered;
}

}  // namespace

int chat_command(const Words& words) {
  std::vector<Option> options = {{"system", "TEXT", "a system message in front of the conversation"},
                                 {"format", "NAME", "how turns are written (what the folder's template prints)"},
                                 {"thinking", "yes|no", "of formats that let one choose (the template's default)"},
                                 {"tokens", "N", "of a reply, at most (1024)"},
                                 {"seed", "N", "another seed, other replies (1)"}};
  for (const std::vector<Option>& more : {sampling_options(kDefaults), opening_options()}) {
    options.insert(options.end(), more.begin(), more.end());
  }
  const Arguments arguments({.command = "chat",
                             .positional = "RUN-OR-FOLDER",
                             .summary = "Talks: a line is a message, the reply comes as it is written. Ctrl-C ends a\n"
                                        "reply, Ctrl-D or /quit the program; /new begins a new conversation. From a\n"
                                        "pipe, each line of it is answered in turn; 64 where one had no room.",
                             .options = options,
                             .least = 1,
                             .most = 1},
                            words);
  if (arguments.helped()) return 0;
  ChatSettings settings;
  settings.system = arguments.text("system");
  settings.sampling = sampling_of(arguments, kDefaults);
  settings.most_tokens = arguments.integer("tokens", settings.most_tokens, 1, 1 << 20);
  settings.seed = static_cast<std::uint64_t>(arguments.integer("seed", 1, 0, std::int64_t{1} << 62));
  if (const std::string thinking = arguments.text("thinking"); !thinking.empty()) {
    if (thinking != "yes" && thinking != "no") fail(ExitCode::usage, "--thinking {}: it must be yes or no", thinking);
    settings.thinking = thinking == "yes";
  }
  const std::filesystem::path folder = model_folder_of(arguments.positional()[0]);
  settings.format = format_of(arguments, folder);
  OpenModelOptions opening = opening_of(arguments);
  if (opening.capacity == 0) opening.capacity = kContext;
  const bool terminal = isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0;
  OpenModel model(folder, opening);
  if (terminal) {
    say("{}: {:.1f}M parameters, {}, {} tokens of context. Ctrl-C ends a reply, Ctrl-D leaves.", folder.string(),
        static_cast<double>(model.parameters()) / 1e6, name(settings.format), model.forward().capacity());
  }
  ChatSession session(model, settings);
  const bool answered = converse(session, terminal);
  return static_cast<int>(answered || terminal ? ExitCode::done : ExitCode::usage);
}

}  // namespace shoestring
