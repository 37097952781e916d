#include "core/training/saved_work.h"

#include <algorithm>

#include "core/budget/ledger.h"
#include "core/budget/run_curve.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kNamed = 8;  // checkpoints in a message

std::string hidden_ones(const CheckpointStore& checkpoints) {
  std::string text;
  for (const UnseenCheckpoint& hidden : checkpoints.unseen()) {
    text += fmt::format("{} is {}, and ", hidden.path.filename().string(), hidden.why);
  }
  return text;
}

std::string names_of(const std::vector<fs::path>& checkpoints) {
  std::string names;
  for (std::size_t i = 0; i < checkpoints.size() && i < kNamed; ++i) {
    names += fmt::format("{}{}", i == 0 ? "" : ", ", checkpoints[i].filename().string());
  }
  if (checkpoints.size() > kNamed) names += fmt::format(" and {} more", checkpoints.size() - kNamed);
  return names;
}

// What every refusal says first and last.
[[noreturn]] void refuse(ExitCode code, const SavedStep& saved, const fs::path& root, const std::string& what,
                         const std::string& remedy) {
  fail(code,
       "the ledger says that step {} of this run was saved, as {}, but {}. Nothing was touched. {}, or begin anew with "
       "--begin-anew, which moves the run directory aside",
       saved.step, (root / saved.name).string(), what, remedy);
}

void check_seen(const SavedStep& saved, const CheckpointStore& checkpoints, bool from_older) {
  const fs::path& root = checkpoints.root();
  std::vector<fs::path> found;
  try {
    found = checkpoints.all();
  } catch (const Error& error) {
    refuse(error.code(), saved, root, error.what(), "Put it right and start again");
  }
  if (found.empty() && type_of(root) == fs::file_type::not_found) {
    refuse(ExitCode::missing_input, saved, root, fmt::format("there is no folder {}", root.string()),
           "Put it back, or mount the disk it lies on");
  }
  if (found.empty()) {
    refuse(ExitCode::corrupt_checkpoint, saved, root,
           fmt::format("{}the folder holds no checkpoint", hidden_ones(checkpoints)), "Put it back");
  }
  if (step_of(found.front()) < saved.step && !from_older) {
    refuse(ExitCode::corrupt_checkpoint, saved, root,
           fmt::format("{}only {} can be seen", hidden_ones(checkpoints), names_of(found)),
           "Put it back, or go on from what is there with --from-older, which does the steps since then again");
  }
  std::string damage;
  for (const fs::path& checkpoint : found) {
    const std::string wrong = damage_of(checkpoint, Look::sizes);
    if (wrong.empty()) return;
    damage += fmt::format("{}{}: {}", damage.empty() ? "" : "; ", checkpoint.filename().string(), wrong);
  }
  refuse(ExitCode::corrupt_checkpoint, saved, root, fmt::format("what is there is damaged ({})", damage),
         "Restore one from a copy");
}

}  // namespace

SavedStep last_saved(const LedgerHistory& history) {
  SavedStep saved;
  if (history.attempts.empty()) return saved;
  saved.step = std::max<std::int64_t>(0, history.attempts.back().kept_step);
  saved.name = fmt::format("step_{:08}", saved.step);
  return saved;
}

void check_saved_work(const LedgerHistory& history, const CheckpointStore& checkpoints, bool from_older) {
  const SavedStep saved = last_saved(history);
  if (saved.step > 0) return check_seen(saved, checkpoints, from_older);
  const fs::path run = checkpoints.root().parent_path();
  if (!checkpoints.all().empty()) {
    if (!history.attempts.empty()) return;
    fail(ExitCode::bad_data,
         "{} holds checkpoints, but the ledger beside it tells of no attempt: what the run has spent is unknown. Put "
         "ledger.jsonl back from a copy, or begin a new run under another run.name",
         checkpoints.root().string());
  }
  const char* const remedy =
      "Nothing was touched. Put both back from a copy, or begin anew with --begin-anew, which moves the run directory "
      "aside";
  if (history.damaged_lines > 0) {
    fail(ExitCode::bad_data,
         "{}: {} lines cannot be read, and no checkpoint is in {}: what was saved and spent is unknown. {}",
         (run / kLedgerFile).string(), history.damaged_lines, checkpoints.root().string(), remedy);
  }
  std::error_code absent;
  const std::uintmax_t bytes = fs::file_size(run / kMetricsFile, absent);
  if (history.attempts.empty() && !absent && bytes > 0) {
    fail(ExitCode::bad_data,
         "{} tells of steps, but the ledger beside it of no attempt, and no checkpoint is in {}: what was saved and "
         "spent is unknown. {}",
         (run / kMetricsFile).string(), checkpoints.root().string(), remedy);
  }
}

std::string saved_work_text(const CheckpointStore& checkpoints) {
  try {
    const std::vector<fs::path> found = checkpoints.all();
    if (found.empty())
      return fmt::format("no checkpoint is in {}: nothing of this run is saved", checkpoints.root().string());
    return fmt::format("in {} there {} {}; the same command goes on from the newest that is sound",
                       checkpoints.root().string(), found.size() == 1 ? "is" : "are", names_of(found));
  } catch (const std::exception& error) {
    return fmt::format("what checkpoints there are cannot be seen: {}", error.what());
  }
}

fs::path set_aside(const fs::path& run_directory, const Clock& clock) {
  if (type_of(run_directory) != fs::file_type::directory) return {};
  fs::path from = fs::absolute(run_directory).lexically_normal();
  if (from.filename().empty()) from = from.parent_path();
  const Ledger held(run_directory, clock);  // nobody else runs in it
  fs::path to;
  for (int number = 1;; ++number) {
    to = from;
    to += fmt::format(".old_{}", number);
    if (type_of(to) == fs::file_type::not_found && !fs::is_symlink(to)) break;
  }
  rename_durably(from, to);
  return to;
}

}  // namespace shoestring
