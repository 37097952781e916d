#include "core/training/signals.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <initializer_list>
#include <string_view>

namespace shoestring {
namespace {

// A signal comes to any thread, and others ask.
std::atomic<bool> g_stop = false;
std::string_view g_doing;  // set before there is a handler
static_assert(std::atomic<bool>::is_always_lock_free, "a handler may take no lock");

void on_signal(int) { g_stop = true; }

// Whoever presses a key sees what it did. The handler is gone by now: the next one has its usual effect.
void on_interrupt(int) {
  const int before = errno;
  g_stop = true;
  for (const std::string_view text : {std::string_view("\nshoestring: "), g_doing, std::string_view("\n")}) {
    [[maybe_unused]] const ssize_t put = ::write(STDERR_FILENO, text.data(), text.size());
  }
  errno = before;
}

// The kernel sends it once a second from the limit on: one answer is enough.
void on_cpu_limit(int) {
  const int before = errno;
  if (!g_stop.exchange(true)) {
    constexpr std::string_view kText =
        "\nshoestring: this process has used nearly all of its CPU time (`ulimit -t`): leaving before the system ends "
        "it\n";
    [[maybe_unused]] const ssize_t put = ::write(STDERR_FILENO, kText.data(), kText.size());
  }
  errno = before;
}

bool is_ignored(int number) {
  struct sigaction now {};
  return sigaction(number, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

void handle(int number, void (*handler)(int), int flags) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigaction(number, &action, nullptr);
}

/// The hard limit ends the process without a word: the soft one is set as far before it as leaving may take, with all
/// threads at work.
void hear_of_cpu_limit() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_CPU, &limit) != 0 || limit.rlim_max == RLIM_INFINITY) return;
  constexpr rlim_t kLeaving = 60;  // CPU seconds
  const rlim_t early = limit.rlim_max - std::max(limit.rlim_max / 10, std::min(kLeaving, limit.rlim_max / 2));
  if (limit.rlim_cur <= early) return;
  limit.rlim_cur = early;
  ::setrlimit(RLIMIT_CPU, &limit);
}

}  // namespace

void install_signal_handlers(std::string_view doing) {
  g_doing = doing;
  for (const int number : {SIGTERM, SIGUSR1, SIGUSR2}) handle(number, on_signal, SA_RESTART);
  handle(SIGXCPU, on_cpu_limit, SA_RESTART);
  hear_of_cpu_limit();
  if (!is_ignored(SIGHUP)) handle(SIGHUP, on_signal, SA_RESTART);
  if (!is_ignored(SIGINT)) handle(SIGINT, on_interrupt, static_cast<int>(SA_RESTART | SA_RESETHAND));
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

bool stop_requested() { return g_stop; }
void request_stop(bool requested) { g_stop = requested; }

}  // namespace shoestring
