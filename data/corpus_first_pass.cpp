// What the first reading finds out: duplicates, what is left out and held out, the sample of a tokenizer.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "data/batch_reader.h"
#include "data/corpus_passes.h"

namespace shoestring {
namespace {

using Verdict = DuplicateFinder::Verdict;

constexpr std::size_t kRecordsAtOnce = 4096;

/// What the first pass gathers, a document at a time.
class Findings {
 public:
  Findings(const BuildPlace& place, std::size_t rules)
      : finder_(place.folder, place.ranks),
        hold_out_(place.options.hold_out, place.options.seed),
        left_out_(2 * rules) {}

  void add(const DocumentRecord& record) {
    digest_.add(record.fingerprint.content);
    hold_out_.add(record.held_out, record.fingerprint.bytes);
    if (record.left_out == 0) {
      finder_.add(record.fingerprint);
      return;
    }
    finder_.pass();
    ++left_out_.at(2 * (record.left_out - 1u));
    left_out_.at(2 * (record.left_out - 1u) + 1) += record.fingerprint.bytes;
  }

  std::uint64_t digest() const { return digest_.value(); }
  FirstPass finish(const BuildPlace& place, const Curation& curation, PassResult input, CorpusBuildResult& result);

 private:
  DuplicateFinder finder_;
  HoldOut hold_out_;
  std::vector<std::int64_t> left_out_;  // by rule: documents, bytes
  PassDigest digest_;
};

// All ranks' counts, and the verdicts on this rank's documents.
FirstPass Findings::finish(const BuildPlace& place, const Curation& curation, PassResult input,
                           CorpusBuildResult& result) {
  BuildRanks& ranks = place.ranks;
  std::vector<JournalRows> journals;
  std::vector<FingerprintRows> rows;
  ranks.wait_for_all();  // for the journals
  for (int rank = 0; rank < ranks.size(); ++rank) {
    journals.emplace_back(place.folder, rank);
    rows.push_back(journals.back().fingerprints());
  }
  std::vector<Verdict> verdicts = finder_.finish(rows, place.options.near_threshold);
  for (const JournalRows& journal : journals) journal.check_read();
  const auto count = [&](Verdict verdict) { return std::count(verdicts.begin(), verdicts.end(), verdict); };
  result.exact_duplicates = ranks.sum(count(Verdict::exact_duplicate));
  result.near_duplicates = ranks.sum(count(Verdict::near_duplicate));
  for (std::size_t rule = 0; rule < curation.rules().size(); ++rule) {
    result.left_out.push_back(
        {curation.rules()[rule], ranks.sum(left_out_[2 * rule]), ranks.sum(left_out_[2 * rule + 1])});
  }
  hold_out_.finish(verdicts, ranks);
  return {std::move(verdicts), std::move(input), std::move(hold_out_), {}};
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

PassResult read_input(const BuildPlace& place, BuildJournal& journal, const Curation& curation, TokenizerSample* sample,
                      Pace& pace, Findings& findings) {
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
PassResult take_over(BuildJournal& journal, Findings& findings) {
  const PassResult input = *journal.first_pass();
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
    const std::optional<PassResult> found =
        rank == place.ranks.rank() ? PassResult{0, own, 0} : BuildJournal::first_pass_of(place.folder, rank);
    check(found.has_value(), "rank {} has not told what it read", rank);
    all.add(found->counts);
  }
  return all;
}

}  // namespace

FirstPass first_pass(const BuildPlace& place, BuildJournal& journal, const Curation& curation, FirstPassWork work,
                     Pace& pace, CorpusBuildResult& result) {
  Findings findings(place, curation.rules().size());
  TokenizerSample sample(place.options.tokenizer_sample_bytes, place.options.seed);
  const PassResult input = work.reads
                               ? read_input(place, journal, curation, work.samples ? &sample : nullptr, pace, findings)
                               : take_over(journal, findings);
  const bool as_before = place.ranks.sum(journal.first_pass_done(input) ? 0 : 1) == 0;
  result.read = counts_of_all(input.counts, place);
  check_bad_lines(result.read, place.options.corpus.skip_bad);
  FirstPass found = findings.finish(place, curation, input, result);
  found.as_before = as_before;
  if (!work.reads || !work.samples) return found;
  found.sample = sample.take(
      [&](std::size_t document, bool drawn, std::size_t begin, std::string_view text) -> std::size_t {
        if (found.verdicts[document] != Verdict::keep) return 0;
        return found.hold_out.surely_trained(document, drawn, begin, text);
      },
      place.folder, place.ranks);
  return found;
}

}  // namespace shoestring
