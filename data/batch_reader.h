// Internal to the passes of a build: documents by the batch, so that the work on them can be shared out, read by a
// thread of its own while the batch before is worked on.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "data/corpus.h"
#include "data/corpus_build.h"

namespace shoestring {

class BatchReader {
 public:
  /// Throws as CorpusReader. In memory are two batches.
  explicit BatchReader(const CorpusBuildOptions& options, std::int64_t lines_before = 0);
  /// In the middle of the input: when the batch that is being read is whole.
  ~BatchReader();
  BatchReader(const BatchReader&) = delete;
  BatchReader& operator=(const BatchReader&) = delete;

  /// About options.batch_bytes of text; false at the end. Throws what reading it threw.
  bool next(std::vector<Document>& batch);
  /// Of the input as it lies on disk, up to the last batch.
  std::int64_t read_bytes() const;
  // At the end.
  const CorpusCounts& counts() const;
  const LinesAcross& lines_across() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// All documents of a pass, their texts and their order, in one number.
class PassDigest {
 public:
  void add(const std::array<std::uint64_t, 2>& content);
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0;
};

}  // namespace shoestring
