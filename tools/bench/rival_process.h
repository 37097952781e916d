// A rival in a process of its own, which takes one step at a time when told to, so that its steps and ours take turns.
//
// The child says "ready NAME" once it is built; for each line "step" it does one step and answers with its seconds.
#pragma once

#include <sys/types.h>

#include <cstdio>
#include <string>
#include <vector>

namespace shoestring {

/// A child's words, the program first; `environment` holds NAME=VALUE that it gets besides ours.
struct ChildCommand {
  std::vector<std::string> words;
  std::vector<std::string> environment;
  std::string log;  ///< file for its error output (and its output, where that is not read)
};

/// Runs it to its end and returns its exit code, 128 + signal where a signal ended it.
int run_child(const ChildCommand& command);
/// The same; meanwhile polls what it holds in memory. `peak_bytes`: the most that was resident.
int run_child(const ChildCommand& command, long long& peak_bytes);

class RivalProcess {
 public:
  /// Waits until the child is ready. Throws Error(missing_input) with the end of its log when it is not.
  explicit RivalProcess(ChildCommand command);
  ~RivalProcess();
  RivalProcess(const RivalProcess&) = delete;
  RivalProcess& operator=(const RivalProcess&) = delete;

  const std::string& name() const { return name_; }
  /// Seconds of one step, by the child's own clock.
  double step();

 private:
  std::string next_line();

  ChildCommand command_;
  pid_t pid_ = -1;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
  std::string name_;
};

}  // namespace shoestring
