#include "core/training/watch.h"

#include <fmt/core.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "core/training/alike.h"
#include "core/training/signals.h"

namespace shoestring {
namespace {

constexpr double kTurnSeconds = 0.5;

// The training thread is stuck beyond the reach of any message: the launcher ends the other ranks when this one is
// gone.
void end_process(const Verdict& verdict) {
  const std::string line = fmt::format("shoestring: {}\n", verdict.text);
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
  ::_exit(static_cast<int>(verdict.code));
}

}  // namespace

Watch::Watch(Communicator& world, const Recipe& recipe)
    : world_(world),
      rank_(world.rank()),
      patience_(recipe.run.hang_after),
      grace_(patience_.grace()),
      watched_(world, signs_) {
  works_on_files("its start");
}

void Watch::begin(const std::filesystem::path& run_directory) {
  folder_ = run_directory / kRanksFolder;
  if (rank_ == 0) SignFolder(folder_).clear();
  if (world_.size() == 1) return;
  check_shared_folder(world_, folder_);
  watchdog_ = std::make_unique<Watchdog>(rank_, signs_,
                                         WatchSetting{.folder = folder_,
                                                      .turn_seconds = kTurnSeconds,
                                                      .grace = [this] { return grace_.load(); },
                                                      .asked = stop_requested,
                                                      .hear = [] { request_stop(true); },
                                                      .end = end_process});
  watchdog_->start();
}

void Watch::tell_others(const Error& error) {
  if (watchdog_ != nullptr && !signs_.heard()) watchdog_->report(error.code(), error.what());
}

bool Watch::all_end() const {
  if (watchdog_ == nullptr) return false;
  const std::optional<Verdict> verdict = SignFolder(folder_).verdict();
  return verdict && verdict->code != ExitCode::hang;
}

void Watch::await_leader() const noexcept {
  if (world_.size() == 1) return;
  try {
    if (watchdog_ == nullptr && stop_requested()) return;  // the others may never come
    if (watchdog_ == nullptr) return world_.barrier();  // every rank has the same error, and nobody leaves before all
    if (rank_ == 0) return;
    const SignFolder folder(folder_);
    const std::optional<Verdict> verdict = folder.verdict();
    if (verdict && verdict->culprit == 0 && verdict->code == ExitCode::hang) return;  // it hears nothing
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(grace_.load());
    while (folder.read(0) && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  } catch (const std::exception&) {  // memory that is spent: the error that ends the run is what matters
  }
}

}  // namespace shoestring
