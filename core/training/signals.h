// Asks a run to save and leave: SIGTERM, SIGHUP (the terminal is gone), SIGUSR1, SIGUSR2 (forwarded by mpirun, sent by
// schedulers), SIGXCPU (the limit on CPU time, `ulimit -t`) and Ctrl-C. A second Ctrl-C ends the process at once,
// unsaved.
//
// The handler only sets a flag. After each step, with what it cost (Seat::summed), and within it and within an
// evaluation before micro-batches, ranks tell each other whether it is set (StopAgreement): obeyed within one
// micro-batch or two seconds, whichever is longer. In the middle of a pipeline's list they cannot meet: a rank that was
// asked goes through the rest of it without computing (PassStops), and the ranks' watchdogs tell each other
// (parallel/watchdog.h). While a run starts, it is left between two pieces of its loading, or out of a wait for a rank
// that does not come (parallel/communicator_mpi.h), with nothing to save.
#pragma once

#include <string_view>

namespace shoestring {

/// Installs the handlers; SIGPIPE and SIGXFSZ become errors of the write that caused them. SIGHUP and SIGINT stay
/// ignored where they were (nohup; what a script runs in the background). Where CPU time has a hard limit, at which the
/// system kills, the soft one is set before it: by a tenth, and by a minute of CPU time or half the limit. `doing`:
/// what the first Ctrl-C is answered with, for ever valid.
void install_signal_handlers(std::string_view doing = "saving, then leaving; Ctrl-C again leaves at once, unsaved");
/// Whether this process was asked to save and leave.
bool stop_requested();
/// Sets or clears the request (tests; agreement between ranks).
void request_stop(bool requested);

}  // namespace shoestring
