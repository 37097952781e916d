// What a run has saved: as its ledger tells it, and as it lies on disk. A start never begins anew over saved work that
// it cannot see, and no message promises a checkpoint without looking.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "core/budget/ledger_history.h"
#include "core/training/checkpoint.h"

namespace shoestring {

/// The last step that the run saved and still has, by the ledger. step = 0: nothing.
struct SavedStep {
  std::int64_t step = 0;
  std::string name;  ///< of the checkpoint's folder
};
SavedStep last_saved(const LedgerHistory& history);

/// Refuses to start over work that cannot be seen; looks, changes nothing. Throws
///   Error(missing_input)       the folder of checkpoints is not there, or a link leads nowhere (not mounted?)
///   Error(corrupt_checkpoint)  the folder is there and holds no checkpoint of the last saved step or a later one, or
///                              those it holds are all cut short
///   Error(io)                  the system does not let it be looked at
///   Error(bad_data)            the reverse: checkpoints or steps, and a ledger that knows of no attempt; or no
///                              checkpoint, and lines of the ledger that cannot be read.
/// A checkpoint that is there and damaged is CheckpointStore::newest's matter: the one before may take its place.
/// `from_older`: the user takes an older checkpoint where the last is not there.
void check_saved_work(const LedgerHistory& history, const CheckpointStore& checkpoints, bool from_older);

/// For the end of a failed attempt: the checkpoints that are there, by name, and how to go on.
std::string saved_work_text(const CheckpointStore& checkpoints);

/// Moves the run directory aside, to the first free NAME.old_N beside it, and returns where it went; empty when there
/// was none. Throws Error(io) when another process is running in it.
std::filesystem::path set_aside(const std::filesystem::path& run_directory, const Clock& clock);

}  // namespace shoestring
