// Which documents share a sample, in which order, in which epoch: a pure function of (seed, source, epoch, position).
//
// Idea. Packing needs only lengths, and lengths do not change between epochs. So the pieces (documents; those longer
// than a sample are split) are sorted by length once, and cut into groups of nearly equal length. One best-fit
// pass packs *slots*, each as long as the longest piece of its group, into bins of sequence + 1 tokens.
// An epoch is then a stateless permutation of the pieces inside every group, plus one of the bins: every arrangement
// fits, because a slot holds any piece of its group. The number of samples is the same in every epoch, and sample i is
// found without looking at any other: no window to pack, no prefix to sum, nothing to store per epoch. The price is
// the slack between a piece and its slot, at most 1/2048 of the tokens. A plan of many millions of pieces repeats one
// table of bins over several windows, each of which takes one piece of every run of `windows` neighbours in the order.
//
// Fill-in-the-middle marks slots, so its three sentinels are part of a slot's length; which document meets a marked
// slot changes with the epoch.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace shoestring {

/// The documents of one shard inside a source: ends relative to the shard, `base` = tokens of the shards before it.
struct DocumentEnds {
  std::span<const std::uint64_t> ends;
  std::uint64_t base = 0;
};

/// A run of tokens of one document that goes into one sample.
struct Piece {
  std::uint64_t begin = 0;   ///< token position in the source
  std::uint32_t length = 0;  ///< tokens, sentinels not counted
  bool fill_in_middle = false;
};

/// What becomes of a document longer than a sample.
enum class LongDocuments : std::uint8_t {
  split,  ///< into pieces, of which each is a document of its own
  cut,    ///< its front is kept
  drop,
};

struct PackingOptions {
  std::int64_t sequence = 0;  ///< a sample is sequence + 1 tokens
  std::uint64_t seed = 0;
  std::uint32_t source = 0;        ///< keeps the orders of sources independent
  double fill_in_middle_rate = 0;  ///< share of the whole documents that fit together with their sentinels
  std::int64_t window_pieces = std::int64_t{1} << 20;  ///< pieces per window; smaller only in tests
  LongDocuments long_documents = LongDocuments::split;
  /// Whether a piece of a long document, tokens [begin, begin + length) of the source, is worth training on; one that
  /// is not is dropped. Empty: each is.
  std::function<bool(std::uint64_t begin, std::uint32_t length)> useful{};
};

/// Where the tokens of an epoch go; the same in every epoch. samples * (sequence + 1) = tokens + sentinels + padding,
/// and tokens + dropped_tokens = all there are.
struct PackingCounts {
  std::int64_t samples = 0;
  std::int64_t documents = 0;
  std::int64_t pieces = 0;
  std::int64_t split_documents = 0;  ///< longer than a sample, cut into pieces
  std::int64_t tokens = 0;           ///< each once
  std::int64_t sentinels = 0;        ///< 3 per fill-in-the-middle document
  std::int64_t fill_in_middle_documents = 0;
  std::int64_t padding = 0;
  std::int64_t dropped_tokens = 0;       ///< of long documents that are not split, and of pieces that are not useful
  std::int64_t truncated_documents = 0;  ///< of which a part is kept
  std::int64_t dropped_documents = 0;    ///< of which nothing is
};

class PackingPlan {
 public:
  /// About 100 ns and 12 bytes per document. Throws Error(bad_data) when there is no document.
  PackingPlan(std::span<const DocumentEnds> documents, const PackingOptions& options);

  std::int64_t samples_per_epoch() const { return counts_.samples; }
  const PackingCounts& counts() const { return counts_; }

  /// The pieces of sample `position` (0 .. samples_per_epoch - 1) of `epoch`, in order, replacing what `pieces` held.
  /// Together with sentinels they take at most sequence + 1 tokens. Thread-safe.
  void sample(std::int64_t epoch, std::int64_t position, std::vector<Piece>& pieces) const;

 private:
  struct Group {
    std::uint64_t first_piece;
    std::uint64_t pieces;  ///< at most strata * windows_; the last stratum of a kind may be short
    std::uint32_t strata;
    std::uint32_t slot_tokens;  ///< the longest piece
    bool whole;                 ///< whole documents; else parts of split ones
  };
  /// Place for one piece of a group in each window.
  struct Slot {
    std::uint32_t group;
    std::uint32_t marked : 1;    ///< fill-in-the-middle applies
    std::uint32_t stratum : 31;  ///< within the group
  };
  void collect(std::span<const DocumentEnds> documents);
  void form_groups(std::uint64_t first_piece, std::uint64_t last_piece, bool whole);
  std::vector<std::uint32_t> mark_slots();
  void pack_slots(const std::vector<std::uint32_t>& slot_tokens);

  PackingOptions options_;
  PackingCounts counts_;
  std::uint64_t whole_pieces_ = 0;  ///< they stand behind the parts of split documents
  std::uint64_t windows_ = 1;
  std::vector<std::uint64_t> pieces_;  ///< both kinds longest first; begin in the upper 44 bits, length in the lower 20
  std::vector<Group> groups_;
  std::vector<std::uint32_t> bin_begin_;  ///< [bins + 1] into slots_
  std::vector<Slot> slots_;               ///< by bin; while planning by stratum
};

}  // namespace shoestring
