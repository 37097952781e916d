#include "core/training/signals.h"

#include <csignal>
#include <initializer_list>

namespace shoestring {
namespace {

volatile std::sig_atomic_t g_stop = 0;

void on_signal(int) { g_stop = 1; }

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (const int number : {SIGUSR2, SIGTERM}) sigaction(number, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

bool stop_requested() { return g_stop != 0; }
void request_stop(bool requested) { g_stop = requested ? 1 : 0; }

}  // namespace shoestring
