// Batches: the pieces of a sample end to end, read, shifted and padded.
#include <algorithm>

#include "data/loader_state.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

/// One call under way.
class Fetching {
 public:
  explicit Fetching(std::atomic<int>& count) : count_(count) { ++count_; }
  ~Fetching() { --count_; }
  Fetching(const Fetching&) = delete;
  Fetching& operator=(const Fetching&) = delete;

 private:
  std::atomic<int>& count_;
};

/// How long each piece took.
class ReadClock {
 public:
  explicit ReadClock(const ShardStorage& storage) : storage_(storage), last_(storage.seconds()) {}
  void took(const Shard& shard, std::int64_t tokens, Batch& batch) {
    const double now = storage_.seconds();
    batch.reads.push_back({&shard, shard.has_copy(), tokens * shard.info().token_bytes, now - last_});
    last_ = now;
  }

 private:
  const ShardStorage& storage_;
  double last_;
};

}  // namespace

void Loader::State::locate(MixtureDraw draw, SampleOrigin& origin) const {
  const PackingPlan& packing = sources[static_cast<std::size_t>(draw.source)].plan;
  origin.source = draw.source;
  origin.epoch = draw.index / packing.samples_per_epoch();
  origin.position = draw.index % packing.samples_per_epoch();
  packing.sample(origin.epoch, origin.position, origin.pieces);
}

/// One row of a batch as it grows; the last of its sequence + 1 tokens has no place in `inputs`.
struct Loader::State::Row {
  std::int32_t* inputs;
  std::int32_t* targets;
  std::int32_t* segment_start;
  float* weights;           ///< null: none are asked for
  std::int32_t first_flat;  ///< flat index of the row in the batch
  std::int64_t length;
  std::int64_t used = 0;

  void open_segment(std::int64_t begin, std::int64_t end) {
    std::fill(segment_start + begin, segment_start + end, first_flat + static_cast<std::int32_t>(begin));
  }
  /// Room for `count` tokens: in the row, or beside it where they reach its last token.
  std::int32_t* room(std::int64_t count, std::vector<std::int32_t>& beside) {
    return used + count <= length ? inputs + used : beside.data();
  }
  /// The tokens of a piece are complete: each is the target of the one before it, the first only if it `follows`.
  void close(std::int64_t count, const std::int32_t* tokens, bool follows) {
    if (tokens != inputs + used) std::copy(tokens, tokens + count - 1, inputs + used);
    if (follows && used > 0) targets[used - 1] = tokens[0];
    std::copy(tokens + 1, tokens + count, targets + used);
    used += count;
    if (used <= length) targets[used - 1] = -1;
  }
  /// Of the last `count` tokens, those in `inputs`: ids, and no target for what is only read.
  void unmark(std::int64_t count) {
    for (std::int64_t t = used - count; t < std::min(used, length); ++t) {
      inputs[t] &= 0x7FFFFFFF;
      targets[t] = std::max(targets[t], -1);
    }
  }
  void weigh(std::int64_t count, TokenWeights what) {
    const std::int64_t begin = used - count;
    const std::int64_t end = std::min(used, length);
    const auto learned = end - begin - std::count(targets + begin, targets + end, -1);
    const bool alike = what == TokenWeights::tokens || learned == 0;
    std::fill(weights + begin, weights + end, alike ? 1.0f : 1.0f / static_cast<float>(learned));
  }
};

// The pieces end to end; the targets are the same tokens one place earlier, copied while a piece is in L1.
void Loader::State::lay_out(const SampleOrigin& origin, const SampleOrigin* next, Row row, Batch& batch) const {
  ReadClock clock(*options.storage);
  const TokenSource& source = sources[static_cast<std::size_t>(origin.source)].tokens;
  thread_local std::vector<std::int32_t> beside;
  thread_local std::vector<std::int32_t> document;
  beside.resize(static_cast<std::size_t>(row.length) + 1);
  document.resize(beside.size());
  for (std::size_t at = 0; at < origin.pieces.size(); ++at) {
    if (at + 1 < origin.pieces.size()) {
      source.prefetch(origin.pieces[at + 1].begin);
    } else if (next != nullptr && !next->pieces.empty()) {
      sources[static_cast<std::size_t>(next->source)].tokens.prefetch(next->pieces.front().begin);
    }
    const Piece& piece = origin.pieces[at];
    const std::int64_t count = piece.length + (piece.fill_in_middle ? kFillInMiddleSentinels : 0);
    std::int32_t* const tokens = row.room(count, beside);
    if (piece.fill_in_middle) {
      source.read(piece.begin, piece.length, document.data());
      const Random random(options.seed, Purpose::fill_in_middle,
                          0x80000000u | static_cast<std::uint32_t>(origin.source));
      const MiddleSpan middle =
          choose_middle(piece.length, random, static_cast<std::uint64_t>(origin.epoch) << 44 | piece.begin);
      fill_in_middle(document.data(), piece.length, middle, *options.fill_in_middle, tokens);
      batch.fill_in_middle_documents += 1;
    } else {
      masked ? source.read_marked(piece.begin, piece.length, tokens) : source.read(piece.begin, piece.length, tokens);
    }
    clock.took(source.shard_with(piece.begin), piece.length, batch);
    if (options.document_mask) row.open_segment(row.used, std::min(row.used + count, row.length));
    row.close(count, tokens, !options.document_mask);
    if (masked) row.unmark(count);
    if (options.weights != TokenWeights::none) row.weigh(count, options.weights);
    batch.text_tokens += piece.length;
  }
  batch.pieces += static_cast<std::int64_t>(origin.pieces.size());
  batch.padding_tokens += row.length + 1 - row.used;
  finish_row(origin, row, batch);
}

// Padding, and what is counted of the row.
void Loader::State::finish_row(const SampleOrigin& origin, Row& row, Batch& batch) const {
  if (row.used < row.length) {
    batch.padding_inputs += row.length - row.used;
    std::fill(row.inputs + row.used, row.inputs + row.length, static_cast<std::int32_t>(first.end_of_document));
    std::fill(row.targets + row.used, row.targets + row.length, -1);
    if (row.weights != nullptr) std::fill(row.weights + row.used, row.weights + row.length, 1.0f);
  }
  if (masked) {
    if (row.used < row.length) row.open_segment(row.used, row.length);
    batch.trained_tokens += row.length - std::count(row.targets, row.targets + row.length, -1);
    return;
  }
  if (!options.document_mask) {
    row.open_segment(0, row.length);
    batch.trained_tokens += std::max<std::int64_t>(row.used - 1, 0);
    return;
  }
  if (row.used < row.length) row.open_segment(row.used, row.length);
  batch.trained_tokens += row.used - static_cast<std::int64_t>(origin.pieces.size());
}

void Loader::fetch(SampleRange range, Batch& batch) const {
  const State& state = *state_;
  const Fetching fetching(state_->fetching);
  check(range.first >= 0 && range.count >= 1, "samples [{}, +{})", range.first, range.count);
  const std::int64_t tokens = range.count * state.options.sequence;
  check(tokens < std::int64_t{1} << 31, "{} samples of {} tokens do not fit one batch", range.count,
        state.options.sequence);
  for (std::vector<std::int32_t>* row : {&batch.inputs, &batch.targets, &batch.segment_start}) {
    row->resize(static_cast<std::size_t>(tokens));
  }
  const bool weighted = state.options.weights != TokenWeights::none;
  batch.weights.resize(weighted ? static_cast<std::size_t>(tokens) : 0);
  batch.first_sample = range.first;
  batch.samples = range.count;
  batch.sequence = state.options.sequence;
  batch.trained_tokens = batch.padding_tokens = batch.padding_inputs = batch.text_tokens = 0;
  batch.pieces = batch.fill_in_middle_documents = 0;
  batch.reads.clear();

  std::vector<MixtureDraw> draws(static_cast<std::size_t>(range.count));
  state.mixture->draw(range.first, draws);
  thread_local std::vector<SampleOrigin> origins;
  if (origins.size() < draws.size()) origins.resize(draws.size());
  for (std::size_t row = 0; row < draws.size(); ++row) state.locate(draws[row], origins[row]);
  for (std::size_t row = 0; row < draws.size(); ++row) {
    const std::size_t at = row * static_cast<std::size_t>(state.options.sequence);
    const SampleOrigin* next = row + 1 < draws.size() ? &origins[row + 1] : nullptr;
    state.lay_out(origins[row], next,
                  {&batch.inputs[at], &batch.targets[at], &batch.segment_start[at],
                   weighted ? &batch.weights[at] : nullptr, static_cast<std::int32_t>(at), state.options.sequence},
                  batch);
  }
}

std::int64_t Loader::read_ahead(SampleRange range) const {
  std::vector<MixtureDraw> draws(static_cast<std::size_t>(range.count));
  state_->mixture->draw(range.first, draws);
  std::int64_t bytes = 0;
  SampleOrigin origin;
  for (const MixtureDraw& draw : draws) {
    state_->locate(draw, origin);
    const TokenSource& source = state_->sources[static_cast<std::size_t>(origin.source)].tokens;
    for (const Piece& piece : origin.pieces) {
      bytes += source.will_need(piece.begin, static_cast<std::uint64_t>(piece.length));
    }
  }
  return bytes;
}

}  // namespace shoestring
