#include "parallel/watchdog.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <set>
#include <system_error>
#include <thread>

#include "kernels/base/host.h"

namespace shoestring {
namespace {

/// A sign that did not count up for so many of its turns, and seconds, stands still.
constexpr double kStillTurns = 4;
constexpr double kStillSeconds = 2;

}  // namespace

Watchdog::Watchdog(int rank, VitalSigns& signs, WatchSetting setting)
    : rank_(rank), signs_(signs), setting_(std::move(setting)), folder_(setting_.folder), host_(host_name()) {
  reading_ = signs_.read();
  folder_.write(sign());
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    leaves_ = true;
  }
  leaving_.notify_all();
  if (thread_.joinable()) thread_.join();
  folder_.remove(rank_);
}

void Watchdog::start(const ThreadMaker& make) {
  try {
    thread_ = make([this] { run(); });
  } catch (const std::system_error& error) {
    fail(ExitCode::io, "cannot make the thread that watches rank {}: {}; {}", rank_, error.code().message(),
         thread_limits());
  }
  signs_.watch();
}

void Watchdog::run() {
  const std::chrono::duration<double> due(setting_.turn_seconds);
  auto last = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  while (!leaving_.wait_for(lock, due, [this] { return leaves_; })) {
    const auto now = std::chrono::steady_clock::now();
    try {
      turn(std::chrono::duration<double>(now - last).count());
    } catch (const std::exception&) {  // memory that is spent: perhaps not in the next turn
    }
    last = now;
  }
}

void Watchdog::turn(double seconds) {
  seconds = std::min(seconds, 2 * setting_.turn_seconds);
  count(seconds);
  folder_.write(sign());
  pass_request_on();
  if (!signs_.condemned()) {
    std::optional<Verdict> verdict = folder_.verdict();
    if (!verdict) {
      verdict = look(seconds);
      if (verdict && !folder_.write(*verdict)) verdict = folder_.verdict();
    }
    if (verdict) signs_.condemn(*verdict);
  } else {
    carry_out(seconds);
  }
}

void Watchdog::count(double seconds) {
  ++turns_;
  VitalSigns::Reading now = signs_.read();
  stalled_seconds_ = now.progress == reading_.progress ? stalled_seconds_ + seconds : 0;
  reading_ = std::move(now);
  if (stalled_seconds_ == 0) seen_.clear();
}

RankSign Watchdog::sign() const {
  return {.rank = rank_,
          .host = host_,
          .process = ::getpid(),
          .turn = turns_,
          .turn_seconds = setting_.turn_seconds,
          .stalled_seconds = stalled_seconds_,
          .limits = reading_.limits,
          .waits_for = reading_.waits_for,
          .doing = reading_.doing};
}

void Watchdog::pass_request_on() {
  if (request_passed_) return;
  if (setting_.asked()) {
    folder_.ask_to_stop();
  } else if (folder_.asked_to_stop()) {
    setting_.hear();
  } else {
    return;
  }
  request_passed_ = true;
}

const Watchdog::Seen& Watchdog::see(int rank, double seconds) {
  const std::optional<RankSign> now = folder_.read(rank);
  const auto [entry, first] = seen_.try_emplace(rank);
  Seen& seen = entry->second;
  const bool still = !first && (!now || (seen.there && now->turn == seen.sign.turn));
  seen.still_seconds = still ? seen.still_seconds + seconds : 0;
  if (now) seen.sign = *now;
  seen.there = seen.there || now.has_value();
  return seen;
}

// Along the waits, from this rank on. Signs are looked at somewhat before a limit is over, so that it is known by then
// which of them stand still. Who waits is not to blame, whatever its own limit. What a stopped rank was at in its last
// sign it may have left since: unless it was at that alone, the limit is the one that all have now.
std::optional<Verdict> Watchdog::look(double seconds) {
  const RankSign own = sign();
  if (own.limits.sign_seconds <= 0) return std::nullopt;  // of no phase yet
  if (own.waits_for < 0) return stuck(own, "");
  if (stalled_seconds_ < own.limits.sign_seconds - 2 * kStillSeconds) return std::nullopt;
  std::set<int> passed = {rank_};
  bool all_stalled = stalled_seconds_ >= own.limits.sign_seconds;
  for (RankSign at = own;;) {
    const Seen& seen = see(at.waits_for, seconds);
    const RankSign& next = seen.sign;
    const std::string whom =
        fmt::format("; {} waits for it, {:.1f} s already: {}", name(at), at.stalled_seconds, at.doing);
    if (seen.still_seconds >= std::max(kStillSeconds, kStillTurns * next.turn_seconds)) {
      const double limit = std::max(own.limits.sign_seconds, next.limits.alone ? next.limits.sign_seconds : 0);
      if (stalled_seconds_ < limit) return std::nullopt;
      if (!seen.there) return hang(at.waits_for, fmt::format("rank {} left no sign of life{}", at.waits_for, whom));
      return hang(next.rank, fmt::format("{} has stopped: it gives no sign of life; it was at {}{}", name(next),
                                         next.doing, whom));
    }
    if (!seen.there) return std::nullopt;
    if (next.waits_for < 0) return stuck(next, whom);
    all_stalled = all_stalled && next.stalled_seconds >= next.limits.sign_seconds;
    if (!passed.insert(next.rank).second) {
      if (!all_stalled) return std::nullopt;
      return hang(next.rank, fmt::format("ranks wait for each other for {:.1f} s, among them {} at {}, and {} at {}",
                                         stalled_seconds_, name(next), next.doing, name(at), at.doing));
    }
    at = next;
  }
}

std::optional<Verdict> Watchdog::stuck(const RankSign& sign, const std::string& whom) const {
  if (sign.stalled_seconds < sign.limits.progress_seconds) return std::nullopt;
  return hang(sign.rank, fmt::format("{} is stuck: no progress for {:.1f} s at {}{}", name(sign), sign.stalled_seconds,
                                     sign.doing, whom));
}

Verdict Watchdog::hang(int culprit, const std::string& what) const {
  return {.code = ExitCode::hang,
          .culprit = culprit,
          .author = rank_,
          .text = what + "; look at its machine, and at what it said"};
}

// Whoever hears the verdict leaves by itself. Whoever does not is stuck where nothing reaches it.
void Watchdog::carry_out(double seconds) {
  condemned_seconds_ += seconds;
  if (ended_ || signs_.heard()) return;
  const double grace = setting_.grace();
  if (condemned_seconds_ < grace || stalled_seconds_ < std::max(grace, reading_.limits.progress_seconds)) return;
  ended_ = true;
  if (const std::optional<Verdict> verdict = signs_.verdict()) setting_.end(*verdict);
}

bool Watchdog::report(ExitCode code, const std::string& text) {
  const Verdict verdict{
      .code = code,
      .culprit = rank_,
      .author = rank_,
      .text = fmt::format(
          "{}: {}", name({.rank = rank_, .host = host_, .process = ::getpid(), .limits = {}, .doing = {}}), text)};
  return !signs_.condemned() && folder_.write(verdict);
}

Watched::Watched(Communicator& world, VitalSigns& signs) : world_(world) {
  if (world.size() > 1) world.tell(&signs);
}

Watched::~Watched() { world_.tell(nullptr); }

}  // namespace shoestring
