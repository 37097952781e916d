// RUN/alive: until when a process was certainly alive. The ledger's lines are half a second to half a minute apart; an
// attempt that is killed between two of them is charged up to the moment that stands here.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "core/budget/meter.h"
#include "kernels/base/file.h"

namespace shoestring {

inline constexpr std::string_view kLifeSignFile = "alive";

struct LastSign {
  int attempt = 0;
  double unix_seconds = 0;
};

/// Has a child process overwrite `run_directory`/alive a hundred times a second with the attempt's number and the time,
/// and once more at the moment this process is gone, however it went: the time it took to leave memory is charged too.
/// The child holds no memory or file of the run, hears no signal of the terminal and leaves by itself; where it is
/// killed together with this process (a container), the last write is at most 10 ms old. Nothing is synced: the
/// operating system's cache outlives a process, and a machine that loses power falls back on the ledger's lines. So
/// does one on which the sign cannot be made: that is no reason to stop a run, but one to say so (`trouble`).
///
/// To be made before memory is large or registered with a device: the child begins as a copy of this process.
class LifeSign {
 public:
  LifeSign(const std::filesystem::path& run_directory, int attempt, const Clock& clock);
  /// Waits for the child's last write, a second at most; a child that does not leave by then, as one that was stopped,
  /// is killed.
  ~LifeSign();
  LifeSign(const LifeSign&) = delete;
  LifeSign& operator=(const LifeSign&) = delete;

  /// Why there is no sign, or no child to keep it, and what follows from that; empty where all is well.
  const std::string& trouble() const { return trouble_; }

 private:
  void begin(const std::filesystem::path& name, int attempt, const Clock& clock);

  std::string trouble_;
  pid_t child_ = -1;
  FileHandle life_line_;  // its other end tells the child when the last holder of this one is gone
};

/// What the last process left there; nothing when there is no file or it holds anything else.
std::optional<LastSign> read_life_sign(const std::filesystem::path& run_directory);

/// The same, for who knows that the process is gone: waits until its child has written the last time, a second at most.
std::optional<LastSign> last_life_sign(const std::filesystem::path& run_directory);

}  // namespace shoestring
