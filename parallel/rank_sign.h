// Not for users of communicators: the files in which the watchdogs of a run's ranks meet (watchdog.h). FOLDER/RANK.json
// is one rank's sign, FOLDER/verdict.json why all end, FOLDER/stop says that one was asked to save and leave.
//
// Nothing is synced, no error is thrown: a sign that cannot be written or read now is tried again a turn later.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "parallel/vital_signs.h"

namespace shoestring {

/// How a rank's watchdog last saw its rank.
struct RankSign {
  int rank = 0;
  std::string host;
  std::int64_t process = 0;
  std::int64_t turn = 0;       ///< counts up: a sign that stands still is of a process that does
  double turn_seconds = 0;     ///< between two of them
  double stalled_seconds = 0;  ///< without progress
  WaitLimits limits;
  int waits_for = -1;  ///< a rank; -1: for none
  std::string doing;

  bool operator==(const RankSign&) const = default;
};
/// "rank 1 (host node7, process 4711)".
std::string name(const RankSign& sign);

// As text: one line of JSON. Reading gives nothing for anything else.
std::string to_text(const RankSign& sign);
std::optional<RankSign> parse_sign(std::string_view text);
std::string to_text(const Verdict& verdict);
std::optional<Verdict> parse_verdict(std::string_view text);

class SignFolder {
 public:
  SignFolder() = default;
  explicit SignFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Makes the folder, without what an earlier attempt left in it.
  void clear() const;
  void write(const RankSign& sign) const;
  std::optional<RankSign> read(int rank) const;
  /// The first verdict stands: false where there is one.
  bool write(const Verdict& verdict) const;
  std::optional<Verdict> verdict() const;
  void ask_to_stop() const;
  bool asked_to_stop() const;
  /// A rank's own sign; with the last one the folder.
  void remove(int rank) const;

 private:
  std::filesystem::path sign_of(int rank) const;

  std::filesystem::path folder_;
};

}  // namespace shoestring
