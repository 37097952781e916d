// From text to token shards: duplicates dropped, some of the text held out, a tokenizer trained or brought along.
//
//   OUT/train/train-00000.h5 ...            what is trained on
//   OUT/validation/validation-00000.h5 ...  what is held out
//   OUT/tokenizer.model                     or byte_tokenizer.json, tokenizer.json
//   OUT/held_out.txt                        names of the held-out documents, one a line, parts with their first byte
//   OUT/corpus.json                         counts, written last
//
// Everything is a function of the input and the options. The folder appears under its name when it is complete; until
// then it is OUT.partial, and a build that was stopped there, however, goes on with it and ends with the same bytes.
//
// Several ranks build the same bytes as one. The input is read twice, by each rank its part (CorpusPart). In memory a
// rank holds, whatever the size of the corpus: 16 MiB of what duplicates are found by (sorted_pairs.h), four batches of
// text, and five times the tokenizer's sample. The rest lies in the folder: 710 bytes a document while keys are sorted.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/build_ranks.h"
#include "data/corpus.h"
#include "data/curation.h"
#include "kernels/base/workers.h"

namespace shoestring {

enum class TokenizerChoice : std::uint8_t { bytes, train, file };

struct CorpusBuildOptions {
  CorpusOptions corpus;
  CurationOptions curation{};
  std::filesystem::path out;
  TokenizerChoice tokenizer = TokenizerChoice::train;
  std::filesystem::path tokenizer_file;  ///< with TokenizerChoice::file
  std::uint32_t vocabulary = 4096;       ///< of a trained tokenizer
  /// Training takes many times as much memory, which is SentencePiece's affair.
  std::int64_t tokenizer_sample_bytes = std::int64_t{4} << 20;
  double hold_out = 0.01;                               ///< share of the text: see hold_out.h
  double near_threshold = 0.8;                          ///< estimated similarity from which a document is a duplicate
  std::int64_t shard_tokens = std::int64_t{256} << 20;  ///< a new shard begins after that many
  std::int64_t batch_bytes = std::int64_t{4} << 20;     ///< text that is worked on at a time; changes no result
  std::uint64_t seed = 17;
  std::string source = "text";  ///< named in the shards
  /// Of conversations (corpus.fields.chat), whose shards are masked: only the last message may be learned.
  bool last_reply_alone = false;
};

/// What a rule of curation left out.
struct LeftOut {
  CurationRule rule;
  std::int64_t documents = 0;
  std::int64_t bytes = 0;
};

/// Of all ranks.
struct CorpusBuildResult {
  CorpusCounts read;
  std::vector<std::string> doubtful{};  ///< inputs, on rank 0: see doubtful_inputs
  std::vector<LeftOut> left_out{};
  std::int64_t exact_duplicates = 0;
  std::int64_t near_duplicates = 0;
  std::int64_t train_documents = 0, train_bytes = 0, train_tokens = 0;
  std::int64_t validation_documents = 0, validation_bytes = 0, validation_tokens = 0;
  std::uint32_t vocabulary = 0;
  std::string tokenizer_hash;
};

struct BuildProgress {
  std::string_view doing;       ///< "looking for duplicates"
  std::int64_t done_bytes = 0;  ///< of the input as it lies on disk, in this pass over it
  std::int64_t all_bytes = 0;
  std::int64_t tokens = 0;  ///< written so far
  double seconds = 0;       ///< since it began, of what cannot be measured in bytes
};

struct BuildHooks {
  std::function<void(const std::string&)> say;                   ///< is told, in a sentence, what is being done
  std::function<void(const BuildProgress&)> progress = nullptr;  ///< is told often how far it is
  std::function<bool()> stop = nullptr;                          ///< asked often; true: Error(preempted)
};

/// An exception that is thrown when documents have been read leaves OUT.partial for a build that goes on, and says so.
CorpusBuildResult build_corpus(const CorpusBuildOptions& options, Workers& workers, const BuildHooks& hooks);
/// The same on several ranks, who are all given the same options: rank 0's hooks are told. What one of them throws the
/// others do not hear of. A build is gone on with on as many ranks.
CorpusBuildResult build_corpus(const CorpusBuildOptions& options, Workers& workers, const BuildHooks& hooks,
                               BuildRanks& ranks);

}  // namespace shoestring
