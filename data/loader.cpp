#include "data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#include <utility>

#include "data/block_check.h"
#include "data/loader_state.h"
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

// With the source in what is wrong with it.
PackingPlan plan_of(const std::vector<DocumentEnds>& documents, const PackingOptions& packing,
                    const std::string& name) {
  try {
    return {documents, packing};
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", name, error.what());
  }
}

}  // namespace

Loader::State::State(LoaderOptions loader_options)
    : options((require_options(loader_options), std::move(loader_options))) {
  open_sources();
  mix_sources();
  plan = describe();
  if (options.stage) begin_stage();
}

void Loader::State::open_sources() {
  ShardOptions shards{options.stage ? ShardIo::pread : options.io, options.verify, options.storage, options.patience};
  shards.patience.leave = [this, leave = options.patience.leave] { return stops_waiting || (leave && leave()); };
  for (const DataSource& source : options.sources) {
    TokenSource tokens(source.paths, shards);
    if (!sources.empty()) require_same_tokens(first, tokens.shards().front().info());
    first = tokens.shards().front().info();
    PackingOptions packing;
    packing.sequence = options.sequence;
    packing.seed = options.seed;
    packing.source = static_cast<std::uint32_t>(sources.size());
    packing.fill_in_middle_rate = options.fill_in_middle ? options.fill_in_middle->rate : 0;
    packing.long_documents = options.long_documents;
    unmarked = unmarked || (tokens.masked() && options.learned == LearnedTokens::all);
    if (tokens.masked() && options.learned == LearnedTokens::as_marked) {
      masked = true;
      packing.useful = [&tokens](std::uint64_t begin, std::uint32_t length) { return learns(tokens, begin, length); };
    }
    const std::vector<DocumentEnds> documents = tokens.documents();
    PackingPlan planned = plan_of(documents, packing, source.name);  // while `useful` can read tokens
    sources.push_back({std::move(tokens), std::move(planned)});
  }
  if ((masked || unmarked) && (options.fill_in_middle || !options.document_mask)) {
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
  options.stage->io = options.io;
  options.stage->busy = [this] { return fetching.load(std::memory_order_relaxed) > 0; };
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
  if (unmarked) text += "learned = all\n";
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

Loader::Loader(LoaderOptions options) : state_(std::make_unique<State>(std::move(options))) {}
Loader::~Loader() = default;

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
bool Loader::masked() const { return state_->masked; }
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

void Loader::stop_waiting() const { state_->stops_waiting = true; }

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
