#include "data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#include <utility>

#include "data/block_check.h"
#include "data/token_source.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr int kPlanVersion = 1;            ///< rises whenever the same options come to mean another stream
constexpr std::size_t kNamedSources = 32;  ///< beyond that, one hash stands for all: the plan stays under 4 KiB

void require_options(const LoaderOptions& options) {
  const auto require = [](bool holds, const std::string& rule) {
    if (!holds) fail(ExitCode::usage, "data: {}", rule);
  };
  require(!options.sources.empty(), "no source is given; name a folder of shards");
  require(options.sequence >= 1 && options.sequence <= kMostSequence,
          fmt::format("a sequence of {} tokens; it must have 1 to {}", options.sequence, kMostSequence));
  for (const DataSource& source : options.sources) {
    require(!source.paths.empty(), fmt::format("source `{}` names no shard", source.name));
    require(source.weight > 0 || !options.mix.empty(),
            fmt::format("source `{}` has the weight {}; leave it out instead", source.name, source.weight));
    require(source.most_epochs >= 0 && source.most_epochs <= 1e6,
            fmt::format("source `{}` is to give at most {} epochs", source.name, source.most_epochs));
  }
  if (options.fill_in_middle) {
    const double rate = options.fill_in_middle->rate;
    require(rate >= 0 && rate <= 1, fmt::format("a fill-in-the-middle rate of {}", rate));
  }
}

// The sources' own weights, then those of `mix`.
std::vector<MixturePoint> points_of(const LoaderOptions& options) {
  std::vector<MixturePoint> points(1);
  for (const DataSource& source : options.sources) points.front().weights.push_back(source.weight);
  points.insert(points.end(), options.mix.begin(), options.mix.end());
  if (points.size() > 1 && points[1].first == 0) points.erase(points.begin());
  return points;
}

/// Whether some token of a piece of a masked source is a target: the first one has nothing before it.
bool learns(const TokenSource& tokens, std::uint64_t begin, std::uint32_t length) {
  std::vector<std::int32_t> marked(length);
  tokens.read_marked(begin, length, marked.data());
  return std::any_of(marked.begin() + 1, marked.end(), [](std::int32_t token) { return token >= 0; });
}

/// One source: its bytes and where they go.
struct PlannedSource {
  TokenSource tokens;
  PackingPlan plan;
};

}  // namespace

struct Loader::State {
  explicit State(LoaderOptions loader_options);

  LoaderOptions options;
  std::vector<PlannedSource> sources;
  std::unique_ptr<MixtureSchedule> mixture;
  ShardInfo first;      ///< of the first shard: what all have in common
  bool masked = false;  ///< some shard is
  std::string plan;
  std::unique_ptr<ShardStage> stage;  ///< of shards in `sources`

  void open_sources();
  void begin_stage();
  void mix_sources();
  std::string describe() const;
  std::uint64_t first_share(int source) const;
  /// Finds the sample; reuses `origin`'s memory.
  void locate(MixtureDraw draw, SampleOrigin& origin) const;
  struct Row;
  void lay_out(const SampleOrigin& origin, const SampleOrigin* next, Row row, Batch& batch) const;
  void finish_row(const SampleOrigin& origin, Row& row, Batch& batch) const;
};

Loader::State::State(LoaderOptions loader_options)
    : options((require_options(loader_options), std::move(loader_options))) {
  open_sources();
  mix_sources();
  plan = describe();
  if (options.stage) begin_stage();
}

void Loader::State::open_sources() {
  for (const DataSource& source : options.sources) {
    TokenSource tokens(source.paths, {options.io, options.verify});
    if (!sources.empty()) require_same_tokens(first, tokens.shards().front().info());
    first = tokens.shards().front().info();
    PackingOptions packing;
    packing.sequence = options.sequence;
    packing.seed = options.seed;
    packing.source = static_cast<std::uint32_t>(sources.size());
    packing.fill_in_middle_rate = options.fill_in_middle ? options.fill_in_middle->rate : 0;
    packing.long_documents = options.long_documents;
    if (tokens.masked()) {
      masked = true;
      packing.useful = [&tokens](std::uint64_t begin, std::uint32_t length) { return learns(tokens, begin, length); };
    }
    const std::vector<DocumentEnds> documents = tokens.documents();
    PackingPlan planned(documents, packing);
    sources.push_back({std::move(tokens), std::move(planned)});
  }
  if (masked && (options.fill_in_middle || !options.document_mask)) {
    fail(ExitCode::usage,
         "data: conversations are neither rearranged for fill-in-the-middle nor read into each other: set "
         "data.fim_rate = 0 and data.document_mask = yes");
  }
  if (options.fill_in_middle) {
    for (const std::int32_t id :
         {options.fill_in_middle->begin_id, options.fill_in_middle->hole_id, options.fill_in_middle->end_id}) {
      if (id < 0 || static_cast<std::uint32_t>(id) >= first.vocabulary_size) {
        fail(ExitCode::usage,
             "data: the fill-in-the-middle id {} is not in the vocabulary of {}: take the tokenizer of the shards", id,
             first.vocabulary_size);
      }
    }
  }
}

void Loader::State::mix_sources() {
  std::vector<std::int64_t> most;
  bool limited = false;
  for (std::size_t at = 0; at < sources.size(); ++at) {
    const double epochs = options.sources[at].most_epochs;
    const auto samples = static_cast<double>(sources[at].plan.samples_per_epoch());
    most.push_back(epochs > 0 ? std::max<std::int64_t>(1, std::llround(epochs * samples)) : MixtureSchedule::kNoLimit);
    limited = limited || epochs > 0;
  }
  if (!limited) most.clear();
  mixture = std::make_unique<MixtureSchedule>(points_of(options), most, options.seed);
}

// The shards of the sources that give most for each byte first.
void Loader::State::begin_stage() {
  constexpr std::int64_t kAhead = std::int64_t{1} << 24;  // samples that are looked at: as good as any whole phase
  std::vector<std::pair<double, const Shard*>> worth;
  for (std::size_t at = 0; at < sources.size(); ++at) {
    const std::vector<Shard>& shards = sources[at].tokens.shards();
    double bytes = 0;
    for (const Shard& shard : shards) bytes += static_cast<double>(shard.info().file_bytes);
    const auto given = static_cast<double>(mixture->count(static_cast<int>(at), std::min(kAhead, mixture->samples())));
    for (const Shard& shard : shards) worth.emplace_back(given / bytes, &shard);
  }
  std::stable_sort(worth.begin(), worth.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<const Shard*> shards;
  for (const auto& [each, shard] : worth) {
    if (each > 0) shards.push_back(shard);
  }
  stage = std::make_unique<ShardStage>(*options.stage, std::move(shards));
}

// At sample 0, as a multiple of 2^-32.
std::uint64_t Loader::State::first_share(int source) const {
  const MixtureSchedule::Span& span = mixture->spans().front();
  const auto part = std::find(span.taking_part.begin(), span.taking_part.end(), source);
  return part == span.taking_part.end() ? 0 : span.mixture.share(static_cast<int>(part - span.taking_part.begin()));
}

std::string Loader::State::describe() const {
  std::string text = fmt::format(
      "plan = {}\nseed = {}\nsequence = {}\ndocument_mask = {}\nvocabulary_size = {}\nend_of_document = {}\n"
      "tokenizer = {:016x}\n",
      kPlanVersion, options.seed, options.sequence, options.document_mask, first.vocabulary_size, first.end_of_document,
      checksum(first.tokenizer_hash));
  if (options.long_documents != LongDocuments::split) {
    text += fmt::format("long_documents = {}\n", options.long_documents == LongDocuments::cut ? "cut" : "drop");
  }
  if (options.fill_in_middle) {
    const FillInMiddle& fim = *options.fill_in_middle;
    text += fmt::format("fill_in_middle = {} {} {} {}\n", fim.rate, fim.begin_id, fim.hole_id, fim.end_id);
  }
  std::string lines;
  for (std::size_t at = 0; at < sources.size(); ++at) {
    lines += fmt::format("source.{} = {:016x} share {:08x}\n", at, sources[at].tokens.content_hash(),
                         first_share(static_cast<int>(at)));
  }
  if (!options.mix.empty()) {
    std::string points;
    for (const MixturePoint& point : points_of(options)) {
      points += fmt::format("{}: {}\n", point.first, fmt::join(point.weights, " "));
    }
    text += fmt::format("mix = {:016x}\n", checksum(points));
  }
  std::string limits;
  for (const DataSource& source : options.sources) limits += fmt::format("{}\n", source.most_epochs);
  const auto is_limited = [](const DataSource& source) { return source.most_epochs > 0; };
  if (std::any_of(options.sources.begin(), options.sources.end(), is_limited)) {
    text += fmt::format("most_epochs = {:016x}\n", checksum(limits));
  }
  if (sources.size() > kNamedSources) lines = fmt::format("sources = {} {:016x}\n", sources.size(), checksum(lines));
  return text + lines;
}

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
      source.read_marked(piece.begin, piece.length, tokens);
    }
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

Loader::Loader(LoaderOptions options) : state_(std::make_unique<State>(std::move(options))) {}
Loader::~Loader() = default;

void Loader::fetch(SampleRange range, Batch& batch) const {
  const State& state = *state_;
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
  batch.trained_tokens = batch.padding_tokens = batch.pieces = batch.fill_in_middle_documents = batch.text_tokens = 0;

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

Batch Loader::fetch(SampleRange range) const {
  Batch batch;
  fetch(range, batch);
  return batch;
}

SampleOrigin Loader::origin(std::int64_t sample) const {
  SampleOrigin origin;
  state_->locate(state_->mixture->draw(sample), origin);
  return origin;
}

const LoaderOptions& Loader::options() const { return state_->options; }
std::uint32_t Loader::vocabulary_size() const { return state_->first.vocabulary_size; }
std::uint32_t Loader::end_of_document() const { return state_->first.end_of_document; }
const std::string& Loader::tokenizer_hash() const { return state_->first.tokenizer_hash; }
int Loader::sources() const { return static_cast<int>(state_->sources.size()); }
const std::string& Loader::plan() const { return state_->plan; }

const PackingCounts& Loader::counts(int source) const {
  check(source >= 0 && source < sources(), "source {} of {}", source, sources());
  return state_->sources[static_cast<std::size_t>(source)].plan.counts();
}

std::uint64_t Loader::text_bytes(int source) const {
  check(source >= 0 && source < sources(), "source {} of {}", source, sources());
  return state_->sources[static_cast<std::size_t>(source)].tokens.text_bytes();
}

std::int64_t Loader::given(int source, std::int64_t samples) const { return state_->mixture->count(source, samples); }
std::int64_t Loader::samples() const { return state_->mixture->samples(); }

std::optional<StageCounts> Loader::staged() const {
  return state_->stage ? std::optional(state_->stage->counts()) : std::nullopt;
}

std::int64_t Loader::samples_per_epoch(int source) const { return counts(source).samples; }

void Loader::check_plan(const std::string& saved) const {
  if (saved == state_->plan) return;
  const auto lines_of = [](const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
  };
  const std::vector<std::string> before = lines_of(saved);
  const std::vector<std::string> now = lines_of(state_->plan);
  const std::set<std::string> known_before(before.begin(), before.end());
  const std::set<std::string> known_now(now.begin(), now.end());
  std::string changes;
  for (const std::string& line : before) changes += known_now.contains(line) ? "" : "\n  was: " + line;
  for (const std::string& line : now) changes += known_before.contains(line) ? "" : "\n  is:  " + line;
  fail(ExitCode::bad_data,
       "the data plan is not the one this run began with, so samples would be repeated or skipped:{}\n"
       "resume with the same data settings and shards, or begin a new run",
       changes);
}

}  // namespace shoestring
