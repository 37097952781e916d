// What other programs make of a model folder: a table of their demands, each checked on the folder.
//
// The demands are those of transformers 4.57 and 5, vLLM, SGLang and llama.cpp's converter as of 2026-11. The first
// two read our exports in tests/oracle; for the others this table is all there is.
#pragma once

#include <string>
#include <vector>

#include "core/training/import_folder.h"

namespace shoestring {

enum class Reading : std::uint8_t {
  whole,      ///< as it is
  with_care,  ///< the reasons say what to mind
  refused,    ///< or read as another model than it is
};

struct ReaderVerdict {
  std::string reader;
  Reading reading = Reading::whole;
  std::vector<std::string> reasons;
};

/// One for each reader, ours first.
std::vector<ReaderVerdict> reader_verdicts(const ImportFolder& folder);

/// "reads it", "reads it, but", "does not read it".
std::string_view words_of(Reading reading);

}  // namespace shoestring
