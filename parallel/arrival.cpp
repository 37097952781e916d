#include "parallel/arrival.h"

#include <fmt/core.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <system_error>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/host.h"
#include "parallel/communicator_mpi.h"

namespace shoestring {
namespace {

void print(const std::string& line) {
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

}  // namespace

ArrivalWait::ArrivalWait(ArrivalSetting setting, const ThreadMaker& make) : setting_(std::move(setting)) {
  try {
    thread_ = make([this] { run(); });
  } catch (const std::system_error&) {
  }
}

ArrivalWait::~ArrivalWait() {
  {
    const std::lock_guard lock(mutex_);
    all_there_ = true;
  }
  arrived_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ArrivalWait::run() {
  constexpr std::chrono::milliseconds kLook{100};
  const auto begin = std::chrono::steady_clock::now();
  const std::string here = fmt::format("host {}, process {}", host_name(), ::getpid());
  bool said = false;
  std::unique_lock lock(mutex_);
  do {
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begin;
    if (setting_.asked()) {
      return setting_.leave(fmt::format(
          "shoestring: left as asked while other ranks were waited for ({}); the same command begins\n", here));
    }
    if (!said && waited.count() >= setting_.say_after_seconds) {
      said = true;
      setting_.say(fmt::format(
          "shoestring: waiting for the other ranks of this launch, {:.0f} s already ({}); are all of them started?\n",
          waited.count(), here));
    }
  } while (!arrived_.wait_for(lock, kLook, [this] { return all_there_; }));
}

ArrivalSetting arrival_setting(std::function<bool()> asked) {
  return {.asked = std::move(asked), .say = print, .leave = [](const std::string& line) {
            print(line);
            ::_exit(static_cast<int>(ExitCode::preempted));
          }};
}

std::unique_ptr<Communicator> join_world(std::function<bool()> asked) {
  if (mpi_launch_sign().empty()) return join_world();
  const ArrivalWait wait(arrival_setting(asked));
  return mpi_world(kLargestMessageBytes, {.asked = std::move(asked)});
}

}  // namespace shoestring
