#include "core/budget/ledger_history.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>
#include <unordered_map>

#include "core/budget/ledger_lines.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/host.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

constexpr JsonLimits kLineLimits{.bytes = 1 << 20, .depth = 8};
constexpr double kMostClock = 1e12;  // seconds, monotonic or since 1970; beyond is damage
constexpr double kMostTail = 30;     // seconds; the longest interval between heartbeats
// Seconds; beyond, one of the two clocks was set in between. A step of an hour without a line is still believed.
constexpr double kMostSilence = 4 * 3600;

constexpr std::size_t kMostVariants = 1024;  // of one attempt; more are damage

/// What is gathered of an attempt while its lines go by.
struct Trail {
  double first_mono = 0;
  double last_mono = 0;
  double progress_mono = 0;  // of the last progress
  double last_wall = 0;
  double alive_wall = 0;   // last sign of life; 0: none
  double age_seconds = 0;  // of the process at its first line
  int lines = 0;
  std::vector<CategorySeconds> at_commit;  // spent when each checkpoint was written
  std::vector<bool> begins_phase;          // of each point
};

class Gatherer {
 public:
  explicit Gatherer(LedgerHistory& history) : history_(history) {}

  void line(std::string_view text) {
    const std::optional<Json> object = parsed(text);
    if (!object || !taken(*object)) ++history_.damaged_lines;
  }

  /// What stands behind the last line feed. Of a line that was cut off no part is whole; one that is lacks its line
  /// feed only.
  void tail(std::string_view text) {
    const std::optional<Json> object = parsed(text);
    history_.torn = !object;
    if (object && !taken(*object)) ++history_.damaged_lines;
  }

  void finish(bool written, const std::optional<LastSign>& sign) {
    if (sign && !trails_.empty() && history_.attempts.back().attempt == sign->attempt) {
      trails_.back().alive_wall = sign->unix_seconds;
    }
    for (std::size_t i = 0; i < trails_.size(); ++i) {
      settle_state(i, written && i + 1 == trails_.size());
      settle_tail(i);
    }
    std::int64_t survives = std::numeric_limits<std::int64_t>::max();
    for (std::size_t i = trails_.size(); i-- > 0;) {
      settle_loss(i, survives);
      settle_phases(i);
      if (history_.attempts[i].start.from_step >= 0) {
        survives = std::min(survives, history_.attempts[i].start.from_step);
      }
    }
    for (std::size_t i = 0; i < trails_.size(); ++i) inherit(i);
  }

 private:
  static std::optional<Json> parsed(std::string_view line);
  bool taken(const Json& object);
  void take(const Json& object);
  void take_progress(AttemptHistory& attempt, Trail& trail, const Json& object, const std::string& kind, double mono);
  void take_kind(AttemptHistory& attempt, Trail& trail, const Json& object, const std::string& kind);
  std::size_t index_of(int attempt);
  void settle_state(std::size_t index, bool written);
  void settle_tail(std::size_t index);
  void settle_loss(std::size_t index, std::int64_t survives);
  void settle_phases(std::size_t index);
  void inherit(std::size_t index);

  LedgerHistory& history_;
  std::vector<Trail> trails_;
  std::unordered_map<int, std::size_t> places_;  // of attempts in the history
};

std::optional<Json> Gatherer::parsed(std::string_view line) {
  try {
    return parse_json(line, "a line of the ledger", ExitCode::bad_data, kLineLimits);
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

bool Gatherer::taken(const Json& object) {
  try {
    take(object);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

/// The number under `key`, which stands for a time.
double clock_of(const Json& object, std::string_view key) {
  const double seconds = object.at(key).number();
  if (!(std::abs(seconds) <= kMostClock)) fail(ExitCode::bad_data, "{} = {}", key, seconds);
  return seconds;
}

/// The attempt's place; an attempt whose first line is damaged begins with whatever line is left of it, and is taken to
/// be as the one before it. What was chosen for each op is not: a line of a megabyte must not stand for many.
std::size_t Gatherer::index_of(int number) {
  const auto [found, fresh] = places_.emplace(number, trails_.size());
  if (!fresh) return found->second;
  AttemptHistory& attempt = history_.attempts.emplace_back();
  attempt.attempt = number;
  trails_.emplace_back();
  if (trails_.size() > 1) {
    const AttemptStart& before = history_.attempts[trails_.size() - 2].start;
    attempt.start = {.run = before.run,
                     .project = before.project,
                     .ranks = before.ranks,
                     .host = before.host,
                     .recipe_hash = before.recipe_hash,
                     .build = before.build,
                     .variants = {},
                     .from_step = before.from_step,
                     .from_tokens = before.from_tokens,
                     .cap = before.cap,
                     .price = before.price,
                     .hardware = before.hardware,
                     .parameters = before.parameters,
                     .active_parameters = before.active_parameters,
                     .flops_per_token = before.flops_per_token};
  }
  return trails_.size() - 1;
}

void Gatherer::take(const Json& object) {
  const std::string& kind = object.at("kind").text();
  const double mono = clock_of(object, "mono");
  const double wall = clock_of(object, "wall");
  const auto number = static_cast<int>(object.at("attempt").count(kMostAttempt));
  if (number < 1) fail(ExitCode::bad_data, "attempt {}", number);
  AttemptStart start;
  if (kind == "attempt") start = ledger_lines::read_start(object);
  const std::size_t index = index_of(number);
  AttemptHistory& attempt = history_.attempts[index];
  Trail& trail = trails_[index];
  if (trail.lines == 0) trail.progress_mono = mono;  // nothing is known of the time before
  if (kind == "attempt") {
    attempt.start = std::move(start);
    trail.age_seconds = std::clamp(object.number_or("age_seconds", 0), 0.0, kMostClock);
    trail.progress_mono = mono;
    const std::int64_t from = attempt.start.from_step;
    if (index > 0 && trail.lines == 0) trails_[index - 1].alive_wall = object.number_or("previous_alive", 0);
    while (from >= 0 && !history_.decisions.empty() && history_.decisions.back().step > from) {
      history_.decisions.pop_back();
    }
  }
  if (object.find("seconds") != nullptr) take_progress(attempt, trail, object, kind, mono);
  take_kind(attempt, trail, object, kind);
  if (trail.lines++ == 0) {
    trail.first_mono = mono;
    attempt.begin_unix_seconds = wall - trail.age_seconds;
  }
  trail.last_mono = std::max(trail.last_mono, mono);
  trail.last_wall = wall;
}

void Gatherer::take_progress(AttemptHistory& attempt, Trail& trail, const Json& object, const std::string& kind,
                             double mono) {
  AttemptProgress progress = ledger_lines::read_progress(object);
  if (!attempt.points.empty() && progress.loss == 0) progress.loss = attempt.points.back().loss;
  attempt.points.push_back(std::move(progress));
  trail.begins_phase.push_back(kind == "phase");
  trail.progress_mono = mono;
}

void Gatherer::take_kind(AttemptHistory& attempt, Trail& trail, const Json& object, const std::string& kind) {
  if (kind == "checkpoint") {
    attempt.checkpoints.push_back(ledger_lines::read_commit(object.at("checkpoint")));
    trail.at_commit.push_back(attempt.points.empty() ? CategorySeconds{} : attempt.points.back().seconds);
  } else if (kind == "evaluation") {
    attempt.evaluations.push_back(ledger_lines::read_evaluation(object.at("evaluation")));
  } else if (kind == "suites") {
    attempt.suites.push_back(ledger_lines::read_suites(object.at("suites")));
  } else if (kind == "variants") {
    for (auto& [op, variant] : ledger_lines::read_variants(object)) {  // of a later phase: those that it chose besides
      if (attempt.start.variants.size() < kMostVariants) attempt.start.variants.insert_or_assign(op, variant);
    }
  } else if (kind == "pipeline") {
    attempt.pipeline = ledger_lines::read_pipeline(object.at("pipeline"));
  } else if (kind == "data") {
    attempt.data = ledger_lines::read_data(object.at("data"));
  } else if (kind == "experts") {
    attempt.max_violations = ledger_lines::read_violations(object);
  } else if (kind == "horizon") {
    const HorizonDecision made = ledger_lines::read_decision(object);
    const auto later = [](std::int64_t step, const HorizonDecision& other) { return step < other.step; };
    auto& decisions = history_.decisions;  // by step: those undone are at the end
    decisions.insert(std::upper_bound(decisions.begin(), decisions.end(), made.step, later), made);
  } else if (kind == "note") {
    attempt.notes.push_back(fmt::format("{}: {}", object.text_or("about", ""), object.text_or("text", "")));
  } else if (kind == "end") {
    attempt.state = AttemptState::ended;
    attempt.reason = object.text_or("reason", "");
    attempt.exit_code = static_cast<int>(std::clamp<std::int64_t>(object.whole_or("exit_code", 0), -1, 255));
    attempt.text = object.text_or("text", "");
  }
}

void Gatherer::settle_state(std::size_t index, bool written) {
  AttemptHistory& attempt = history_.attempts[index];
  if (attempt.state == AttemptState::ended) return;
  const bool here = attempt.start.host == host_name() && attempt.start.pid > 0;
  const bool alive = !here || ::kill(static_cast<pid_t>(attempt.start.pid), 0) == 0 || errno == EPERM;
  attempt.state = written && alive ? AttemptState::running : AttemptState::died;
  attempt.reason = attempt.state == AttemptState::running ? "running" : "died";
}

void Gatherer::settle_tail(std::size_t index) {
  AttemptHistory& attempt = history_.attempts[index];
  const Trail& trail = trails_[index];
  attempt.charged = attempt.last().seconds;
  if (attempt.points.empty()) {
    attempt.charged[Category::startup] =
        std::max(0.0, attempt.start.ranks * trail.age_seconds + attempt.start.head_start_gpu_seconds);
  }
  if (attempt.state != AttemptState::died) return;
  const double gap = trail.lines > 1 ? (trail.last_mono - trail.first_mono) / (trail.lines - 1) : 0;
  const double silence = trail.alive_wall - trail.last_wall;  // from the last line to the last sign of life
  const bool signs = silence >= 0 && silence < kMostSilence;
  double tail = trail.last_mono - trail.progress_mono + (signs ? silence : 0.5 * std::min(gap, kMostTail));
  if (index + 1 < trails_.size()) {  // the next attempt cannot have begun before this one was gone
    const double until_next = history_.attempts[index + 1].begin_unix_seconds - trail.last_wall;
    if (until_next >= 0) tail = std::min(tail, trail.last_mono - trail.progress_mono + until_next);
  }
  attempt.tail_gpu_seconds = attempt.start.ranks * std::max(0.0, tail);
  attempt.charged[attempt.points.empty() ? Category::startup : Category::idle] += attempt.tail_gpu_seconds;
}

/// Moves to Category::lost what was done after the step that the run went on from.
void Gatherer::settle_loss(std::size_t index, std::int64_t survives) {
  AttemptHistory& attempt = history_.attempts[index];
  attempt.kept_step = attempt.start.from_step;
  attempt.kept_tokens = attempt.start.from_tokens;
  const AttemptProgress last = attempt.last();
  const bool unbroken = attempt.state == AttemptState::running && survives >= last.step;
  CategorySeconds kept;
  kept[Category::startup] = attempt.charged[Category::startup];
  for (std::size_t i = 0; i < attempt.checkpoints.size(); ++i) {
    const CheckpointCommit& commit = attempt.checkpoints[i];
    if (commit.step > survives || commit.step < attempt.kept_step) continue;
    attempt.kept_step = commit.step;
    attempt.kept_tokens = commit.tokens;
    kept = trails_[index].at_commit[i];
  }
  const bool clean =
      attempt.state == AttemptState::ended && attempt.reason != "failed" && last.step <= attempt.kept_step;
  if (unbroken || clean) {
    attempt.kept_step = std::max(attempt.kept_step, last.step);
    attempt.kept_tokens = std::max(attempt.kept_tokens, last.tokens);
    return;
  }
  const double total = attempt.charged.total();
  kept[Category::startup] = attempt.charged[Category::startup];
  attempt.charged = kept;
  attempt.charged[Category::lost] = std::max(0.0, total - kept.total());
}

void Gatherer::settle_phases(std::size_t index) {
  AttemptHistory& attempt = history_.attempts[index];
  std::unordered_map<std::string, std::size_t> places;  // in attempt.phases
  const auto span = [&](const std::string& phase) -> PhaseSpan& {
    const auto [place, fresh] = places.emplace(phase, attempt.phases.size());
    if (fresh) attempt.phases.push_back({phase, 0, 0, 0});
    return attempt.phases[place->second];
  };
  std::int64_t step = attempt.start.from_step;  // furthest so far
  std::int64_t tokens = attempt.start.from_tokens;
  std::string phase;
  double spent = 0;
  for (std::size_t i = 0; i < attempt.points.size(); ++i) {
    const AttemptProgress& point = attempt.points[i];
    const bool changes = trails_[index].begins_phase[i] && !phase.empty();
    PhaseSpan& part = span(changes ? phase : point.phase);
    part.gpu_seconds += point.seconds.total() - spent;
    if (point.step <= attempt.kept_step) {
      part.steps += std::max<std::int64_t>(0, point.step - step);
      part.tokens += std::max<std::int64_t>(0, point.tokens - tokens);
      step = std::max(step, point.step);
      tokens = std::max(tokens, point.tokens);
    }
    spent = point.seconds.total();
    phase = point.phase;
  }
  const double rest = attempt.charged.total() - spent;  // the tail; all of an attempt that never came to a step
  if (rest > 0) span(phase).gpu_seconds += rest;
}

/// An attempt that died before it knew where to go on from changed nothing: it stands where the one before it stood.
void Gatherer::inherit(std::size_t index) {
  AttemptHistory& attempt = history_.attempts[index];
  attempt.begun = attempt.start.from_step >= 0;
  if (attempt.begun) return;
  attempt.start.from_step = attempt.start.from_tokens = attempt.kept_step = attempt.kept_tokens = 0;
  if (index == 0) return;
  const AttemptHistory& before = history_.attempts[index - 1];
  attempt.start.from_step = attempt.kept_step = before.kept_step;
  attempt.start.from_tokens = attempt.kept_tokens = before.kept_tokens;
  if (attempt.start.hardware.name.empty()) attempt.start.hardware = before.start.hardware;
  if (attempt.start.cap.from.empty()) attempt.start.cap = before.start.cap;
  if (!attempt.start.price) attempt.start.price = before.start.price;
  attempt.start.parameters = before.start.parameters;
  attempt.start.active_parameters = before.start.active_parameters;
  attempt.start.flops_per_token = before.start.flops_per_token;
}

}  // namespace

LedgerHistory read_ledger_text(std::string_view text, bool written, const std::optional<LastSign>& sign) {
  LedgerHistory history;
  Gatherer gatherer(history);
  while (!text.empty()) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) {
      gatherer.tail(text);
      break;
    }
    gatherer.line(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  gatherer.finish(written, sign);
  return history;
}

LedgerHistory read_ledger(const std::filesystem::path& run_directory) {
  const std::filesystem::path file = run_directory / kLedgerFile;
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe would wait for a writer
  if (descriptor < 0 && errno == ENOENT) return {};
  if (descriptor < 0) fail(ExitCode::io, "cannot open {}: {}", file.string(), system_reason(errno));
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    fail(ExitCode::io, "{} is not a regular file; a run's ledger is one: name another run directory", file.string());
  }
  struct flock lock {};  // asked about, not taken: a trainer that starts now must not find it held
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  const bool written = ::fcntl(descriptor, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  std::ostringstream content;
  std::ifstream stream(file, std::ios::binary);
  content << stream.rdbuf();
  ::close(descriptor);
  return read_ledger_text(content.str(), written, read_life_sign(run_directory));
}

}  // namespace shoestring
