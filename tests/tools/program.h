// Runs the built program as a user would, in a folder of the test's own, with data built from generated text.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace shoestring::testing {

struct Ended {
  int exit_code = 0;   ///< 128 + signal where a signal ended it
  std::string output;  ///< stdout and stderr together
  double seconds = 0;  ///< from its start until it was gone
};

/// For Workplace::interrupt: only waits.
std::function<void()> after(double seconds);

/// A folder with text, byte-level shards and a small recipe; runs `shoestring` in it.
class Workplace {
 public:
  Workplace();

  const std::filesystem::path& path() const { return folder_.path(); }
  std::filesystem::path run_folder(const std::string& name) const { return path() / "runs" / name; }

  /// build/shoestring ARGUMENTS, through the shell; `prefix` stands before it ("ulimit -f 8;", "mpirun -n 2").
  Ended run(const std::string& arguments, const std::string& prefix = "") const;
  /// Starts it, waits until it stands in the ledger of run `name` as an attempt, calls `meanwhile`, sends `signal`,
  /// waits until it is gone. Exit code as above. With a `prefix` the signal goes to what that is ("mpirun -n 2"); 0:
  /// none.
  Ended interrupt(const std::string& name, const std::string& arguments, int signal,
                  const std::function<void()>& meanwhile, const std::string& prefix = "") const;

  /// train small.recipe under the run name `name`, with further overrides.
  std::string train(const std::string& name, const std::string& overrides = "") const;

  /// Everything a run must give again bit for bit: the newest checkpoint's tensor files and the metrics without timing.
  std::map<std::string, std::string> result(const std::string& name) const;

 private:
  TemporaryFolder folder_;
};

/// The same with a run of small.recipe of that name, trained to its end.
struct TrainedWorkplace : Workplace {
  explicit TrainedWorkplace(const std::string& name);
};

/// Waits until the ledger of run `name` knows a step; as long as a process writes it.
void wait_for_step(const Workplace& place, const std::string& name);
/// Waits until run `name` has a checkpoint.
void wait_for_checkpoint(const Workplace& place, const std::string& name);
/// The step of its newest checkpoint; 0 where it has none.
std::int64_t saved_step(const Workplace& place, const std::string& name);
/// The process of a rank of run `name`, once its sign says that it is at a step.
int process_of_rank(const Workplace& place, const std::string& name, int rank);
/// Whether a process is gone; waits for it, as long as the end of a killed one may take.
bool is_gone(int process);

/// Of a report: GPU-hours that went into anything but what follows the last step (evaluation, checkpoint).
double hours_of_steps(const nlohmann::json& report);
/// The longest step in the metrics of run `name`.
double slowest_step_hours(const Workplace& place, const std::string& name);

}  // namespace shoestring::testing
