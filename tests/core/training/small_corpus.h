// A few kilobytes of text as shards of bytes, for tests that train.
#pragma once

#include <fmt/core.h>

#include <filesystem>

#include "data/corpus_build.h"
#include "kernels/base/workers.h"
#include "tests/support/temporary_folder.h"

namespace shoestring::testing {

/// Writes `folder`/shards/train; nothing is held out.
inline void build_small_corpus(const std::filesystem::path& folder) {
  for (int file = 0; file < 8; ++file) {
    std::string text;
    for (int line = 0; line < 20; ++line) text += fmt::format("value {} is {}\n", file * 31 + line, line * line);
    write_text(folder / "text" / fmt::format("{}.txt", file), text);
  }
  CorpusBuildOptions options;
  options.corpus.inputs = {folder / "text"};
  options.out = folder / "shards";
  options.tokenizer = TokenizerChoice::bytes;
  options.hold_out = 0;
  Workers workers(1);
  build_corpus(options, workers, {[](const std::string&) {}});
}

}  // namespace shoestring::testing
