// RUN/alive: until when a process was certainly alive. The ledger's lines are half a second to half a minute apart; an
// attempt that is killed between two of them is charged up to the moment that stands here.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>

#include "core/budget/meter.h"

namespace shoestring {

inline constexpr std::string_view kLifeSignFile = "alive";
inline constexpr double kLifeSignSeconds = 0.01;  ///< between two writes

struct LastSign {
  int attempt = 0;
  double unix_seconds = 0;
};

/// Overwrites `run_directory`/alive a hundred times a second with the attempt's number and the time, on a thread of its
/// own. A page of the operating system's cache outlives a killed process; nothing is synced to the disk, and a machine
/// that loses power falls back on the ledger's lines. So do errors of this file: they are no reason to stop a run.
class LifeSign {
 public:
  LifeSign(const std::filesystem::path& run_directory, int attempt, const Clock& clock);
  ~LifeSign();
  LifeSign(const LifeSign&) = delete;
  LifeSign& operator=(const LifeSign&) = delete;

 private:
  void write() const;

  const Clock& clock_;
  int attempt_;
  int descriptor_ = -1;
  std::mutex mutex_;
  std::condition_variable leave_;
  bool leaving_ = false;
  std::thread thread_;
};

/// What the last process left there; nothing when there is no file or it holds anything else.
std::optional<LastSign> read_life_sign(const std::filesystem::path& run_directory);

}  // namespace shoestring
