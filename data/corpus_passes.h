// The two passes of a build over its input (corpus_build.h): what each document is, then what is written of it. Not for
// the reader of corpora.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/build_journal.h"
#include "data/build_ranks.h"
#include "data/corpus_build.h"
#include "data/curation.h"
#include "data/document_fates.h"
#include "data/hold_out.h"
#include "data/tokenizer.h"
#include "data/tokenizer_sample.h"
#include "kernels/base/check.h"

namespace shoestring {

/// Between batches and the like: tells how far a pass is, and asks whether to go on.
class BuildPace {
 public:
  BuildPace(const BuildHooks& hooks, std::string_view doing, std::int64_t all_bytes)
      : hooks_(hooks), progress_{doing, 0, all_bytes, 0} {}
  void at(std::int64_t read_bytes, std::int64_t tokens = 0) {
    progress_.done_bytes = read_bytes;
    progress_.tokens = tokens;
    ask(progress_);
  }
  /// Of what is not measured in bytes.
  void since(std::chrono::steady_clock::time_point begin, std::string_view doing) {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    ask({.doing = doing, .seconds = seconds.count()});
  }

 private:
  void ask(const BuildProgress& progress) const {
    if (hooks_.progress) hooks_.progress(progress);
    if (hooks_.stop && hooks_.stop()) fail(ExitCode::preempted, "stopped while {}", progress.doing);
  }

  const BuildHooks& hooks_;
  BuildProgress progress_;
};

/// What the first pass finds of this rank's documents.
struct FirstPass {
  std::unique_ptr<DocumentFates> fates;
  FirstPassResult input;
  HoldOut hold_out;
  bool as_before = false;             ///< an earlier build found the same on all ranks
  std::vector<std::string> sample{};  ///< of all ranks, on rank 0, where a tokenizer is to be trained
};

/// One rank's view of a build.
struct BuildPlace {
  const CorpusBuildOptions& options;
  const std::filesystem::path& folder;
  BuildRanks& ranks;
  Workers& workers;
  const BuildHooks& hooks;
};

struct FirstPassWork {
  bool reads = true;    ///< false: all ranks' journals know all of it
  bool samples = true;  ///< text for a tokenizer, where it reads
};

/// Fills in what `result` says of all ranks: what was read, duplicates, what rules left out.
FirstPass first_pass(const BuildPlace& place, BuildJournal& journal, const Curation& curation, FirstPassWork work,
                     BuildPace& pace, CorpusBuildResult& result);

/// The second pass finds other documents than the first.
class InputChanged : public Error {
 public:
  using Error::Error;
};

/// Both splits, by the verdicts of the first pass; fills in their parts of `result`. Finished shards in the folder are
/// taken for those of this build. Throws InputChanged.
void write_shards(const BuildPlace& place, const FirstPass& found, const Tokenizer& tokenizer, BuildPace pace,
                  CorpusBuildResult& result);

/// What this rank has encoded: of no use when the input is another one, or when all shards stand.
void remove_working_files(const std::filesystem::path& folder, int rank);

}  // namespace shoestring
