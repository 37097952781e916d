#include "core/budget/ledger.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/budget/ledger_history.h"
#include "core/budget/ledger_lines.h"
#include "core/budget/life_sign.h"
#include "kernels/base/append.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/interrupted.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

std::string read_all(int descriptor, const std::filesystem::path& file) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    fail(ExitCode::io, "{} is not a regular file; a run's ledger is one: name another run directory", file.string());
  }
  std::string content(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t filled = 0;
  while (filled < content.size()) {
    const ssize_t got =
        ::pread(descriptor, content.data() + filled, content.size() - filled, static_cast<off_t>(filled));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_io(file, "read it");
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  content.resize(filled);
  return content;
}

}  // namespace

Ledger::Ledger(const std::filesystem::path& run_directory, const Clock& clock)
    : file_(run_directory / kLedgerFile), clock_(clock) {
  descriptor_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (descriptor_ < 0 && errno == ENOENT) {  // nothing that a user named is missing: it could not be made
    fail(ExitCode::io, "{}: cannot create it: its folder is not there; make {} first", file_.string(),
         run_directory.string());
  }
  if (descriptor_ < 0) fail_io(file_, "open it");
  try {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (::fcntl(descriptor_, F_OFD_SETLK, &lock) != 0) {
      if (errno == EAGAIN || errno == EACCES) {
        fail(ExitCode::io, "another process is running in {}; wait for its end, or name another run.directory",
             run_directory.string());
      }
      fail_io(file_, "lock it");
    }
    const std::string content = read_all(descriptor_, file_);
    const std::optional<LastSign> sign = last_life_sign(run_directory);
    history_ = std::make_unique<LedgerHistory>(read_ledger_text(content, false, sign));
    if (sign && !history_->attempts.empty() && history_->attempts.back().attempt == sign->attempt) {
      previous_alive_ = sign->unix_seconds;
    }
    attempt_ = 1;
    for (const AttemptHistory& earlier : history_->attempts) attempt_ = std::max(attempt_, earlier.attempt + 1);
    if (attempt_ > kMostAttempt) {
      fail(
          ExitCode::bad_data,
          "{}: it holds attempt {}, and no attempt can have a higher number: put the file back from a copy, or correct "
          "the number where it stands",
          file_.string(), kMostAttempt);
    }
    end_last_line(content);
    if (sync_descriptor(descriptor_) != 0) fail_io(file_, "bring it to disk (fsync)");
    sync_directory(run_directory);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

// The next line must begin one.
void Ledger::end_last_line(const std::string& content) {
  const std::size_t whole = content.rfind('\n') == std::string::npos ? 0 : content.rfind('\n') + 1;
  if (whole == content.size()) return;
  if (!history_->torn) return append(descriptor_, file_, "\n");
  if (not_interrupted([&] { return ::ftruncate(descriptor_, static_cast<off_t>(whole)); }) != 0)
    fail_io(file_, "repair it");
}

Ledger::~Ledger() { ::close(descriptor_); }

void Ledger::write(std::string_view kind, Json content) {
  content.set("kind", kind);
  content.set("attempt", attempt_);
  content.set("mono", clock_.monotonic_seconds());
  content.set("wall", clock_.unix_seconds());
  const std::string line = content.dump() + "\n";
  append(descriptor_, file_, line);
  if (sync_descriptor(descriptor_) != 0) fail_io(file_, "bring it to disk (fsync)");
  if (content.find("seconds") != nullptr) last_progress_ = clock_.monotonic_seconds();
}

void Ledger::begin(const AttemptStart& start) {
  Json object = ledger_lines::write(start);
  object.set("schema", kLedgerSchema);
  object.set("age_seconds", clock_.monotonic_seconds() - clock_.process_start());
  if (previous_alive_ > 0) object.set("previous_alive", previous_alive_);
  write("attempt", std::move(object));
}

void Ledger::variants(const std::map<std::string, std::string>& chosen) {
  write("variants", Json::object({{"variants", Json::object_of(chosen)}}));
}

void Ledger::pipeline(const PipelineUse& use) {
  write("pipeline", Json::object({{"pipeline", ledger_lines::write(use)}}));
}

void Ledger::data(const DataReading& reading) { write("data", Json::object({{"data", ledger_lines::write(reading)}})); }

void Ledger::experts(const std::vector<double>& max_violations) {
  write("experts", Json::object({{"max_violations", Json::array_of(max_violations)}}));
}

void Ledger::heartbeat(const AttemptProgress& progress) { write("heartbeat", ledger_lines::write(progress)); }

void Ledger::checkpoint(const CheckpointCommit& commit, const AttemptProgress& progress) {
  Json object = ledger_lines::write(progress);
  object.set("checkpoint", ledger_lines::write(commit));
  write("checkpoint", std::move(object));
}

void Ledger::evaluation(const EvaluationResult& result, const AttemptProgress& progress) {
  Json object = ledger_lines::write(progress);
  object.set("evaluation", ledger_lines::write(result));
  write("evaluation", std::move(object));
}

void Ledger::suites(const SuiteResult& result, const AttemptProgress& progress) {
  Json object = ledger_lines::write(progress);
  object.set("suites", ledger_lines::write(result));
  write("suites", std::move(object));
}

void Ledger::horizon(const HorizonDecision& decision) { write("horizon", ledger_lines::write(decision)); }

void Ledger::phase(const std::string& name, const AttemptProgress& progress) {
  Json object = ledger_lines::write(progress);
  object.set("phase", name);
  write("phase", std::move(object));
}

void Ledger::note(const std::string& kind, const std::string& text) {
  write("note", Json::object({{"about", kind}, {"text", text}}));
}

void Ledger::end(const std::string& reason, int exit_code, const std::string& text, const AttemptProgress& progress) {
  if (ended_) return;
  Json object = ledger_lines::write(progress);
  object.set("reason", reason);
  object.set("exit_code", exit_code);
  object.set("text", text);
  write("end", std::move(object));
  ended_ = true;
}

bool Ledger::heartbeat_due() const {
  const double now = clock_.monotonic_seconds();
  const double interval = std::clamp(0.002 * (now - clock_.process_start()), 0.5, 30.0);
  return now - last_progress_ >= interval;
}

}  // namespace shoestring
