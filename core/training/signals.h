// Asks a run to save and leave: SIGUSR2 (forwarded by mpirun, sent by schedulers) and SIGTERM.
//
// The handler only sets a flag; every loop of a run (micro-batches, evaluation, waiting for data) looks at it.
#pragma once

namespace shoestring {

/// Installs the handlers; SIGPIPE and SIGXFSZ become errors of the write that caused them.
void install_signal_handlers();
/// Whether this process was asked to save and leave.
bool stop_requested();
/// Sets or clears the request (tests; agreement between ranks).
void request_stop(bool requested);

}  // namespace shoestring
