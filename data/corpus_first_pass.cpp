// What the first reading finds out: duplicates, what is left out and held out, the sample of a tokenizer.
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <memory>
#include <optional>

#include "data/batch_reader.h"
#include "data/corpus_passes.h"
#include "data/near_duplicates.h"

namespace shoestring {
namespace {

constexpr std::size_t kRecordsAtOnce = 4096;

/// What the first pass gathers, a document at a time.
class Findings {
 public:
  Findings(const BuildPlace& place, std::size_t rules)
      : finder_(place.folder, place.ranks),
        fates_(std::make_unique<DocumentFates>(place.folder / fmt::format(".fates.{}", place.ranks.rank()))),
        left_out_(2 * rules) {}

  void add(const DocumentRecord& record) {
    const bool left_out = record.left_out != 0;
    digest_.add(record.fingerprint.content);
    fates_->append({.bytes = record.fingerprint.bytes,
                    .verdict = left_out ? DocumentVerdict::left_out : DocumentVerdict::keep,
                    .drawn = static_cast<std::uint8_t>(record.held_out ? 1 : 0)});
    if (!left_out) {
      finder_.add(record.fingerprint);
      return;
    }
    finder_.pass();
    ++left_out_.at(2 * (record.left_out - 1u));
    left_out_.at(2 * (record.left_out - 1u) + 1) += record.fingerprint.bytes;
  }

  std::uint64_t digest() const { return digest_.value(); }
  FirstPass finish(const BuildPlace& place, const Curation& curation, FirstPassResult input, BuildPace& pace,
                   CorpusBuildResult& result);

 private:
  DuplicateFinder finder_;
  std::unique_ptr<DocumentFates> fates_;
  std::vector<std::int64_t> left_out_;  // by rule: documents, bytes
  PassDigest digest_;
};

// All ranks' counts, and what becomes of this rank's documents.
FirstPass Findings::finish(const BuildPlace& place, const Curation& curation, FirstPassResult input, BuildPace& pace,
                           CorpusBuildResult& result) {
  BuildRanks& ranks = place.ranks;
  std::vector<FingerprintRows> rows;
  ranks.wait_for_all();  // for the journals
  for (int rank = 0; rank < ranks.size(); ++rank) rows.push_back(journal_fingerprints(place.folder, rank));
  const auto begin = std::chrono::steady_clock::now();
  finder_.finish(
      rows, place.options.near_threshold,
      [&](std::int64_t document, bool exact) {
        fates_->judge(document, exact ? DocumentVerdict::exact_duplicate : DocumentVerdict::near_duplicate);
      },
      [&] { pace.since(begin, "comparing documents"); });
  std::array<std::int64_t, 4> counts{};  // by verdict
  for (std::int64_t i = 0; i < fates_->count(); ++i) ++counts.at(static_cast<std::size_t>((*fates_)[i].verdict));
  const auto sum = [&](DocumentVerdict verdict) { return ranks.sum(counts.at(static_cast<std::size_t>(verdict))); };
  result.exact_duplicates = sum(DocumentVerdict::exact_duplicate);
  result.near_duplicates = sum(DocumentVerdict::near_duplicate);
  for (std::size_t rule = 0; rule < curation.rules().size(); ++rule) {
    result.left_out.push_back(
        {curation.rules()[rule], ranks.sum(left_out_[2 * rule]), ranks.sum(left_out_[2 * rule + 1])});
  }
  HoldOut hold_out(place.options.hold_out, place.options.seed);
  hold_out.finish(*fates_, ranks);
  return {std::move(fates_), std::move(input), hold_out};
}

// Records of the batch's documents: from the journal as far as it knows them, the rest found out now.
void look_at(const std::vector<Document>& batch, const HoldOut& hold_out, const Curation& curation,
             BuildJournal& journal, Workers& workers, std::vector<DocumentRecord>& records) {
  std::vector<DocumentRecord> known = journal.next_known(batch.size());
  records.assign(batch.size(), {});
  workers.each(static_cast<std::int64_t>(batch.size()), [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    const std::string& text = batch[at].text;
    if (at < known.size() && known[at].fingerprint.content == content_of(text)) {
      records[at] = known[at];
    } else {
      records[at] = {fingerprint(text), hold_out.draws(text), curation.broken_rule(text)};
    }
  });
  std::size_t same = 0;
  while (same < known.size() && known[same].fingerprint.content == records[same].fingerprint.content) ++same;
  journal.confirm(same, same == batch.size());
  journal.append(std::span(records).subspan(same));
}

// Lines before a part's first one in the file that an earlier part begins: what that part had of it, and before it.
std::int64_t lines_before(const LinesAcross& own, BuildRanks& ranks) {
  const std::vector<std::int64_t> all = ranks.gather(std::array<std::int64_t, 2>{own.lines, own.through ? 1 : 0});
  std::int64_t before = 0;
  for (int rank = 0; rank < ranks.rank(); ++rank) {
    const auto at = 2 * static_cast<std::size_t>(rank);
    before = all[at] + (all[at + 1] != 0 ? before : 0);
  }
  return before;
}

FirstPassResult read_input(const BuildPlace& place, BuildJournal& journal, const Curation& curation,
                           TokenizerSample* sample, BuildPace& pace, Findings& findings) {
  BatchReader reader(place.options);
  const HoldOut hold_out(place.options.hold_out, place.options.seed);
  std::vector<Document> batch;
  std::vector<DocumentRecord> records;
  std::size_t documents = 0;
  while (reader.next(batch)) {
    look_at(batch, hold_out, curation, journal, place.workers, records);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      findings.add(records[i]);
      const bool may_be_kept = sample != nullptr && records[i].left_out == 0;
      if (may_be_kept) sample->add(documents + i, records[i].held_out, batch[i].text);
    }
    documents += batch.size();
    pace.at(reader.read_bytes());
  }
  return {findings.digest(), reader.counts(), lines_before(reader.lines_across(), place.ranks)};
}

// What an earlier build read, from its journal.
FirstPassResult take_over(BuildJournal& journal, Findings& findings) {
  const FirstPassResult input = *journal.first_pass();
  std::vector<DocumentRecord> records;
  while (!(records = journal.next_known(kRecordsAtOnce)).empty()) {
    for (const DocumentRecord& record : records) findings.add(record);
    journal.confirm(records.size(), true);
  }
  return input;
}

// All ranks' counts in one, on every rank.
CorpusCounts counts_of_all(const CorpusCounts& own, const BuildPlace& place) {
  if (place.ranks.size() == 1) return own;
  CorpusCounts all;
  for (int rank = 0; rank < place.ranks.size(); ++rank) {
    const std::optional<FirstPassResult> found =
        rank == place.ranks.rank() ? FirstPassResult{0, own, 0} : BuildJournal::first_pass_of(place.folder, rank);
    check(found.has_value(), "rank {} has not told what it read", rank);
    all.add(found->counts);
  }
  return all;
}

}  // namespace

FirstPass first_pass(const BuildPlace& place, BuildJournal& journal, const Curation& curation, FirstPassWork work,
                     BuildPace& pace, CorpusBuildResult& result) {
  Findings findings(place, curation.rules().size());
  TokenizerSample sample(place.options.tokenizer_sample_bytes, place.options.seed);
  const FirstPassResult input =
      work.reads ? read_input(place, journal, curation, work.samples ? &sample : nullptr, pace, findings)
                 : take_over(journal, findings);
  const bool as_before = place.ranks.sum(journal.first_pass_done(input) ? 0 : 1) == 0;
  result.read = counts_of_all(input.counts, place);
  check_bad_lines(result.read, place.options.corpus.skip_bad);
  FirstPass found = findings.finish(place, curation, input, pace, result);
  found.as_before = as_before;
  if (!work.reads || !work.samples) return found;
  found.sample = sample.take(
      [&](std::size_t document, bool drawn, std::size_t begin, std::string_view text) -> std::size_t {
        if ((*found.fates)[static_cast<std::int64_t>(document)].verdict != DocumentVerdict::keep) return 0;
        return found.hold_out.surely_trained(document, drawn, begin, text);
      },
      place.folder, place.ranks);
  return found;
}

}  // namespace shoestring
