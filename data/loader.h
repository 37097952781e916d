// From shards to batches: sample number in, tokens out.
//
// A loader is a pure function of (options, sample number). It keeps no position: a run's place in its data is one
// number, the count of samples consumed so far, and any rank, thread or restart that asks for sample i gets the same
// tokens. Ranks are the caller's affair; it asks for the samples it wants.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/fill_in_middle.h"
#include "data/mixture_schedule.h"
#include "data/packing.h"
#include "data/shard.h"
#include "data/shard_stage.h"

namespace shoestring {

struct DataSource {
  std::string name;
  std::vector<std::string> paths;  ///< shard files, or directories whose *.h5 files are taken in name order
  double weight = 1.0;             ///< share of the samples, relative to the other sources
  double most_epochs = 0;          ///< gives at most so many of its epochs' samples; 0: no limit
};

/// What Batch::weights holds.
enum class TokenWeights : std::uint8_t {
  none,       ///< nothing
  tokens,     ///< 1: every learned token counts alike
  documents,  ///< 1 / learned tokens of the document in its sample: every document counts alike
};

/// Which tokens are targets.
enum class LearnedTokens : std::uint8_t {
  as_marked,  ///< of a masked shard those that it marks as learned, of another one all
  all,
};

inline constexpr std::int64_t kMostSequence = (1 << 20) - 2;  ///< tokens of a sample

struct LoaderOptions {
  std::vector<DataSource> sources;
  std::vector<MixturePoint> mix{};  ///< other weights from later samples on
  std::int64_t sequence = 0;
  std::uint64_t seed = 0;
  /// Documents of a sample do not see each other: segment_start changes at each, and no document's last token predicts
  /// the next one's first. Off: a sample is one text.
  bool document_mask = true;
  std::optional<FillInMiddle> fill_in_middle;
  LongDocuments long_documents = LongDocuments::split;
  TokenWeights weights = TokenWeights::none;
  LearnedTokens learned = LearnedTokens::as_marked;
  ShardIo io = ShardIo::mmap;
  bool verify = true;                   ///< see ShardOptions
  std::optional<StageOptions> stage{};  ///< copies of the shards on a disk near by; changes no batch
  // Of the shards where they lie, which are read by pread where they are copied.
  const ShardStorage* storage = &system_storage();
  StoragePatience patience{};
};

/// Samples [first, first + count) of the plan.
struct SampleRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
};

/// How long the tokens of one piece took to come, and from where.
struct ShardRead {
  const Shard* shard = nullptr;  ///< of the loader
  bool copied = false;           ///< from its copy near by
  std::int64_t bytes = 0;
  double seconds = 0;
};

/// `samples` rows of `sequence` tokens, flattened. Padding stands at the end of a row: target -1, input the
/// end-of-document id, with document_mask a segment of its own. What a masked shard marks as only read is no target.
struct Batch {
  std::int64_t first_sample = 0;
  std::int64_t samples = 0;
  std::int64_t sequence = 0;
  std::vector<std::int32_t> inputs;         ///< [samples * sequence] token ids
  std::vector<std::int32_t> targets;        ///< [samples * sequence] next token, or -1: not trained
  std::vector<std::int32_t> segment_start;  ///< [samples * sequence] flat index of the first token t may look at: t's
                                            ///< place in its document is t - segment_start[t]
  std::vector<float> weights;               ///< [samples * sequence] or empty: see TokenWeights
  std::int64_t trained_tokens = 0;          ///< targets that are not -1
  std::int64_t padding_tokens = 0;          ///< of samples * (sequence + 1)
  std::int64_t padding_inputs = 0;          ///< of `inputs`
  std::int64_t pieces = 0;                  ///< documents, or parts of documents longer than a sample
  std::int64_t fill_in_middle_documents = 0;
  std::int64_t text_tokens = 0;  ///< text_tokens + sentinels + padding = samples * (sequence + 1)
  std::vector<ShardRead> reads;  ///< [pieces] of the fetch that filled it
};

/// Where one sample's tokens come from.
struct SampleOrigin {
  int source = 0;
  std::int64_t epoch = 0;
  std::int64_t position = 0;  ///< in the epoch
  std::vector<Piece> pieces;
};

class Loader {
 public:
  /// Opens every shard and plans every source. Throws as Shard::open does, Error(bad_data) when shards differ in
  /// tokenizer, vocabulary or end-of-document id, Error(usage) when the options contradict themselves.
  explicit Loader(LoaderOptions options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Thread-safe. Reuses `batch`'s memory. A corrupt block fails the fetch: Error(bad_data). A storage that fails is
  /// waited for as options().patience says (StorageWait).
  void fetch(SampleRange range, Batch& batch) const;
  Batch fetch(SampleRange range) const;
  SampleOrigin origin(std::int64_t sample) const;
  /// Asks the storage for what a fetch will read, in its order; returns the bytes asked for. Thread-safe.
  std::int64_t read_ahead(SampleRange range) const;
  /// From here on no fetch waits for a storage that fails: one that does throws Error(preempted).
  void stop_waiting() const;

  const LoaderOptions& options() const;
  std::uint32_t vocabulary_size() const;
  std::uint32_t end_of_document() const;
  const std::string& tokenizer_hash() const;
  /// Whether some shard says which of its tokens are learned, and that is followed.
  bool masked() const;

  int sources() const;
  const PackingCounts& counts(int source) const;  ///< one epoch of that source
  std::uint64_t text_bytes(int source) const;     ///< of one epoch; 0 when unknown
  /// How many of the samples [0, samples) come from a source.
  std::int64_t given(int source, std::int64_t samples) const;
  /// How many there are before all sources have given as many epochs as they may.
  std::int64_t samples() const;
  /// Samples after which source 0 alone has been seen once; what a validation set of one source is evaluated over.
  std::int64_t samples_per_epoch(int source = 0) const;

  /// How far the shards are copied; nothing where they are not.
  std::optional<StageCounts> staged() const;

  /// What decides the stream, one "key = value" a line; independent of io, verify and of where the shards lie. Under
  /// 4 KiB. Kept beside the sample counter in a checkpoint.
  const std::string& plan() const;
  /// Throws Error(bad_data) naming each line that differs, when `saved` (an earlier plan()) is not this plan.
  void check_plan(const std::string& saved) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoestring
