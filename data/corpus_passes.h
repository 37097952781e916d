// The two passes of a build over its input (corpus_build.h): what each document is, then what is written of it. Not for
// the reader of corpora.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "data/build_journal.h"
#include "data/corpus_build.h"
#include "data/hold_out.h"
#include "data/near_duplicates.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"

namespace shoestring {

/// Between batches: tells how far a pass is, and asks whether to go on.
class Pace {
 public:
  Pace(const BuildHooks& hooks, std::string_view doing, std::int64_t all_bytes)
      : hooks_(hooks), progress_{doing, 0, all_bytes, 0} {}
  void at(std::int64_t read_bytes, std::int64_t tokens = 0) {
    progress_.done_bytes = read_bytes;
    progress_.tokens = tokens;
    if (hooks_.progress) hooks_.progress(progress_);
    if (hooks_.stop && hooks_.stop()) fail(ExitCode::preempted, "stopped while {}", progress_.doing);
  }

 private:
  const BuildHooks& hooks_;
  BuildProgress progress_;
};

/// What the first pass finds.
struct FirstPass {
  std::vector<DuplicateFinder::Verdict> verdicts;
  std::uint64_t digest = 0;
  HoldOut hold_out;
};

/// `folder` is for working files. Fills in result.read and the duplicates.
FirstPass find_duplicates(const CorpusBuildOptions& options, const std::filesystem::path& folder, BuildJournal& journal,
                          Pace pace, Workers& workers, CorpusBuildResult& result);

/// Both splits, by the verdicts of the first pass; fills in their parts of `result`. Finished shards in `folder` are
/// taken for those of this build. Throws Error(bad_data) where the input is another than it was.
void write_shards(const CorpusBuildOptions& options, const std::filesystem::path& folder, const FirstPass& found,
                  const Tokenizer& tokenizer, const BuildHooks& hooks, Pace pace, Workers& workers,
                  CorpusBuildResult& result);

}  // namespace shoestring
