// Inputs that can be read once only, standard input and named pipes, as files that can be read twice.
#pragma once

#include <filesystem>

#include "data/corpus.h"
#include "data/corpus_passes.h"

namespace shoestring {

/// Whether the input is standard input, "-", or a pipe by name.
bool is_pipe(const std::filesystem::path& input);

/// Every pipe among the inputs is read from a copy in `folder`, which stands there when `copy_pipes` has made it.
void name_pipes(CorpusOptions& corpus, const std::filesystem::path& folder);
/// Reads every pipe among the inputs `asked` for to its end, one after the other, into the copies that `corpus` names.
/// What came out of a pipe is not known to be all that should have: a packed stream or a line of JSON that is cut is
/// noticed when it is read, plain text cannot be. However long nothing comes, `hooks.stop` is asked. Throws Error(io),
/// and Error(usage) where standard input is a terminal or stands there twice.
void copy_pipes(const CorpusOptions& asked, const CorpusOptions& corpus, const BuildHooks& hooks);

}  // namespace shoestring
