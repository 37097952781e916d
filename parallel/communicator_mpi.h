// Ranks as MPI processes, in host memory. No MPI type leaves communicator_mpi.cpp.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace shoestring {

/// The environment variable that says this process was started by mpirun, srun with PMI(x), or an MPI operator; empty
/// for a plain start. Touches no MPI.
std::string mpi_launch_sign();

/// Why a world of `size` ranks is not what was launched, and what to do; empty where it is. A launcher of another MPI,
/// whose messages our library does not understand, gives every process a world of its own. `variable` is getenv, asked
/// before MPI is initialised, which sets some of them itself. The launcher next to the process counts: one that
/// started another tells of that one's processes.
std::string launch_mismatch(const std::function<const char*(const char*)>& variable, int size);

/// The environment variables that say of this process that another one is the first of its launch; none where it is
/// the first, or alone. As above of the launcher next to the process. Touches no MPI.
std::vector<std::string> later_in_launch(const std::function<const char*(const char*)>& variable);

inline constexpr std::int64_t kLargestMessageBytes = std::int64_t{1} << 30;

/// How a rank that waits for another is asked to leave, while no watchdog looks after the waits (vital_signs.h).
struct LeaveRequest {
  std::function<bool()> asked = nullptr;  ///< called by the thread that waits
  /// Since a wait has heard of it, for ranks that leave in order; the first rank, which keeps the account, has a second
  /// less than the others. Open MPI's mpirun kills a second after its SIGTERM: the first is to have said why by then.
  double patience_seconds = 0.5;
};

/// The world of all processes of this launch; initialises MPI. Once per process: MPI is finalised when this and all its
/// splits are gone (not while an exception unwinds: then the launcher ends the others). Messages above
/// `largest_message_bytes` travel in pieces, since MPI counts in int. Waits that outlast `leave` throw
/// Error(preempted).
std::unique_ptr<Communicator> mpi_world(std::int64_t largest_message_bytes = kLargestMessageBytes,
                                        LeaveRequest leave = {});

}  // namespace shoestring
