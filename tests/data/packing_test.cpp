#include "data/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "data/sample_ledger.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using testing::error_of;

std::vector<std::uint64_t> ends_of_lengths(const std::vector<std::uint64_t>& lengths) {
  std::vector<std::uint64_t> ends;
  for (const std::uint64_t length : lengths) ends.push_back((ends.empty() ? 0 : ends.back()) + length);
  return ends;
}

std::vector<std::uint64_t> lognormal_lengths(std::size_t count, double median, std::uint64_t seed) {
  const Random random(seed, Purpose::test);
  std::vector<std::uint64_t> lengths(count);
  for (std::size_t at = 0; at < count; ++at) {
    lengths[at] = 2 + static_cast<std::uint64_t>(median * std::exp(1.1 * random.normal(at)));
  }
  return lengths;
}

struct Case {
  std::string name;
  std::vector<std::uint64_t> lengths;
  std::int64_t sequence;
  std::int64_t window_pieces;
  double rate;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const double rate : {0.0, 0.1}) {
    for (const std::int64_t window : {std::int64_t{1} << 20, std::int64_t{700}, std::int64_t{1}}) {
      all.push_back({"lognormal", lognormal_lengths(5000, 500, 1), 2048, window, rate});
      all.push_back({"short", lognormal_lengths(3000, 12, 2), 255, window, rate});
      all.push_back({"long", lognormal_lengths(300, 3000, 3), 512, window, rate});
      all.push_back({"equal", std::vector<std::uint64_t>(1000, 300), 512, window, rate});
      all.push_back({"exact", std::vector<std::uint64_t>(100, 513), 512, window, rate});
      all.push_back({"twice", std::vector<std::uint64_t>(100, 1026), 512, window, rate});
      all.push_back({"one", {5}, 512, window, rate});
    }
  }
  return all;
}

TEST(Packing, EveryTokenOncePerEpochAndSumsHold) {
  for (const Case& test : cases()) {
    const auto ends = ends_of_lengths(test.lengths);
    const DocumentEnds documents{ends, 0};
    const PackingPlan plan({&documents, 1}, {test.sequence, 7, 0, test.rate, test.window_pieces});
    const PackingCounts& counts = plan.counts();
    SCOPED_TRACE(fmt::format("{} window {} rate {}", test.name, test.window_pieces, test.rate));
    EXPECT_EQ(counts.samples * (test.sequence + 1), counts.tokens + counts.sentinels + counts.padding);
    EXPECT_EQ(counts.tokens, static_cast<std::int64_t>(ends.back()));
    EXPECT_EQ(counts.documents, static_cast<std::int64_t>(ends.size()));
    for (const std::int64_t epoch : {0, 1, 5}) {
      SampleLedger ledger(counts.tokens);
      std::vector<Piece> pieces;
      std::int64_t marked = 0;
      std::int64_t seen = 0;
      for (std::int64_t position = 0; position < counts.samples; ++position) {
        plan.sample(epoch, position, pieces);
        std::int64_t used = 0;
        for (const Piece& piece : pieces) {
          used += piece.length + (piece.fill_in_middle ? 3 : 0);
          marked += piece.fill_in_middle ? 1 : 0;
        }
        ASSERT_LE(used, test.sequence + 1);
        seen += static_cast<std::int64_t>(pieces.size());
        ledger.add(pieces);
      }
      EXPECT_TRUE(ledger.complete()) << ledger.missing_tokens() << " missing, " << ledger.repeated_tokens() << " twice";
      EXPECT_EQ(marked, counts.fill_in_middle_documents);
      EXPECT_EQ(seen, counts.pieces);
    }
  }
}

TEST(Packing, CutsOnlyWhatDoesNotFit) {
  const auto lengths = lognormal_lengths(4000, 400, 4);
  const auto ends = ends_of_lengths(lengths);
  const DocumentEnds documents{ends, 0};
  const PackingPlan plan({&documents, 1}, {1024, 7, 0, 0});
  std::map<std::uint64_t, std::uint64_t> pieces_at;
  std::vector<Piece> pieces;
  for (std::int64_t position = 0; position < plan.samples_per_epoch(); ++position) {
    plan.sample(0, position, pieces);
    for (const Piece& piece : pieces) pieces_at[piece.begin] = piece.length;
  }
  std::int64_t split = 0;
  std::uint64_t begin = 0;
  for (const std::uint64_t length : lengths) {
    if (length <= 1025) {
      ASSERT_EQ(pieces_at.at(begin), length);
    } else {
      ++split;
      EXPECT_EQ(pieces_at.at(begin), 1025u);
    }
    begin += length;
  }
  EXPECT_EQ(plan.counts().split_documents, split);
}

// Padding of real-looking corpora stays under 0.1%, which a concat-and-cut loader pays with cut documents instead.
TEST(Packing, PaddingIsSmall) {
  const auto lengths = lognormal_lengths(60000, 520, 5);
  const auto ends = ends_of_lengths(lengths);
  const DocumentEnds documents{ends, 0};
  for (const std::int64_t sequence : {512, 2048, 4096}) {
    for (const double rate : {0.0, 0.1}) {
      for (const std::int64_t window : {std::int64_t{1} << 20, std::int64_t{20000}}) {
        const PackingPlan plan({&documents, 1}, {sequence, 7, 0, rate, window});
        const PackingCounts& counts = plan.counts();
        const double padding =
            static_cast<double>(counts.padding) / static_cast<double>(counts.samples * (sequence + 1));
        std::printf("  sequence %ld rate %.1f window %ld: padding %.4f%%, %ld documents with a gap\n", sequence, rate,
                    window, 100 * padding, counts.fill_in_middle_documents);
        EXPECT_LT(padding, 0.001);
        if (rate > 0) {
          const double share = static_cast<double>(counts.fill_in_middle_documents) /
                               static_cast<double>(counts.documents - counts.split_documents);
          EXPECT_NEAR(share, rate, 0.01);
        }
      }
    }
  }
}

TEST(Packing, EpochsAndSeedsAndSourcesDiffer) {
  const auto ends = ends_of_lengths(lognormal_lengths(3000, 300, 6));
  const DocumentEnds documents{ends, 0};
  const auto order = [&](std::uint64_t seed, std::uint32_t source, std::int64_t epoch) {
    const PackingPlan plan({&documents, 1}, {512, seed, source, 0});
    std::vector<std::uint64_t> begins;
    std::vector<Piece> pieces;
    for (std::int64_t position = 0; position < 200; ++position) {
      plan.sample(epoch, position, pieces);
      for (const Piece& piece : pieces) begins.push_back(piece.begin);
    }
    return begins;
  };
  const auto base = order(1, 0, 0);
  EXPECT_EQ(base, order(1, 0, 0));
  for (const auto& other : {order(2, 0, 0), order(1, 1, 0), order(1, 0, 1)}) {
    std::size_t same = 0;
    for (std::size_t at = 0; at < std::min(base.size(), other.size()); ++at) same += base[at] == other[at] ? 1 : 0;
    EXPECT_LT(same, base.size() / 50);
  }
}

// Documents that share a sample in one epoch mostly do not share one in the next.
TEST(Packing, CompanyChangesWithTheEpoch) {
  const auto ends = ends_of_lengths(lognormal_lengths(20000, 100, 7));
  const DocumentEnds documents{ends, 0};
  const PackingPlan plan({&documents, 1}, {1024, 1, 0, 0});
  const auto pairs = [&](std::int64_t epoch) {
    std::set<std::pair<std::uint64_t, std::uint64_t>> met;
    std::vector<Piece> pieces;
    for (std::int64_t position = 0; position < plan.samples_per_epoch(); ++position) {
      plan.sample(epoch, position, pieces);
      for (const Piece& a : pieces) {
        for (const Piece& b : pieces) {
          if (a.begin < b.begin) met.insert({a.begin, b.begin});
        }
      }
    }
    return met;
  };
  const auto first = pairs(0);
  const auto second = pairs(1);
  std::size_t again = 0;
  for (const auto& pair : first) again += second.count(pair);
  EXPECT_LT(static_cast<double>(again), 0.2 * static_cast<double>(first.size()));
}

TEST(Packing, ShardsOfOneSourceAreOneRun) {
  const auto lengths = lognormal_lengths(2000, 200, 8);
  const auto ends = ends_of_lengths(lengths);
  const DocumentEnds whole{ends, 0};
  std::vector<std::uint64_t> tail(ends.begin() + 700, ends.end());
  for (std::uint64_t& end : tail) end -= ends[699];
  const std::vector<DocumentEnds> parts{{{ends.data(), 700}, 0}, {tail, ends[699]}};
  const PackingPlan a({&whole, 1}, {512, 3, 0, 0.1});
  const PackingPlan b(parts, {512, 3, 0, 0.1});
  ASSERT_EQ(a.samples_per_epoch(), b.samples_per_epoch());
  std::vector<Piece> in_a, in_b;
  for (std::int64_t position = 0; position < a.samples_per_epoch(); ++position) {
    a.sample(2, position, in_a);
    b.sample(2, position, in_b);
    ASSERT_EQ(in_a.size(), in_b.size());
    for (std::size_t at = 0; at < in_a.size(); ++at) {
      ASSERT_EQ(in_a[at].begin, in_b[at].begin);
      ASSERT_EQ(in_a[at].length, in_b[at].length);
      ASSERT_EQ(in_a[at].fill_in_middle, in_b[at].fill_in_middle);
    }
  }
}

TEST(Packing, LedgerSeesRepeatsAndGaps) {
  SampleLedger ledger(100);
  ledger.add({{0, 50}, {60, 40}});
  EXPECT_EQ(ledger.missing_tokens(), 10);
  EXPECT_FALSE(ledger.complete());
  ledger.add({{50, 10}});
  EXPECT_TRUE(ledger.complete());
  ledger.add({{99, 1}});
  EXPECT_EQ(ledger.repeated_tokens(), 1);
  EXPECT_FALSE(ledger.complete());
}

TEST(Packing, NoDocumentIsAnError) {
  EXPECT_EQ(error_of([] { PackingPlan({}, {512, 1, 0, 0}); }).code(), ExitCode::bad_data);
}

// Documents of 3, 10 and 25 tokens in samples of 8.
PackingPlan plan_of_long(LongDocuments what, std::function<bool(std::uint64_t, std::uint32_t)> useful = {}) {
  static const std::vector<std::uint64_t> ends = {3, 13, 38};
  const std::vector<DocumentEnds> documents = {{ends, 100}};
  PackingOptions options;
  options.sequence = 7;
  options.long_documents = what;
  options.useful = std::move(useful);
  return PackingPlan(documents, options);
}

TEST(Packing, SaysWhyNoDocumentMakesASample) {
  const std::vector<std::uint64_t> ends = {10, 35};
  const auto why = [&](LongDocuments what) {
    PackingOptions options{.sequence = 7, .long_documents = what, .useful = [](auto, auto) { return false; }};
    return std::string(error_of([&] { PackingPlan(std::vector<DocumentEnds>{{ends, 0}}, options); }).what());
  };
  const std::string all = "no document makes a sample: all 2 are longer than 8 tokens";
  const std::string more = "give samples more tokens (sequence)";
  EXPECT_EQ(why(LongDocuments::split),
            all + ", and none of the parts that they are split into holds anything to learn; " + more);
  EXPECT_EQ(why(LongDocuments::cut), all + ", and their fronts hold nothing to learn; " + more);
  EXPECT_EQ(why(LongDocuments::drop), all + "; cut or split them (long_documents), or " + more);
}

std::vector<std::uint64_t> begins(const PackingPlan& plan) {
  std::vector<std::uint64_t> all;
  std::vector<Piece> pieces;
  for (std::int64_t position = 0; position < plan.samples_per_epoch(); ++position) {
    plan.sample(0, position, pieces);
    for (const Piece& piece : pieces) all.push_back(piece.begin);
  }
  std::sort(all.begin(), all.end());
  return all;
}

TEST(Packing, LongDocumentsAreSplitCutOrDropped) {
  const auto split = plan_of_long(LongDocuments::split);
  EXPECT_EQ(begins(split), (std::vector<std::uint64_t>{100, 103, 111, 113, 121, 129, 137}));
  EXPECT_EQ(split.counts().split_documents, 2);
  EXPECT_EQ(split.counts().dropped_tokens, 0);
  const auto cut = plan_of_long(LongDocuments::cut);
  EXPECT_EQ(begins(cut), (std::vector<std::uint64_t>{100, 103, 113}));
  EXPECT_EQ(cut.counts().truncated_documents, 2);
  EXPECT_EQ(cut.counts().dropped_tokens, 2 + 17);
  const auto drop = plan_of_long(LongDocuments::drop);
  EXPECT_EQ(begins(drop), (std::vector<std::uint64_t>{100}));
  EXPECT_EQ(drop.counts().dropped_documents, 2);
  for (const PackingPlan* plan : {&split, &cut, &drop}) {
    const PackingCounts& counts = plan->counts();
    EXPECT_EQ(counts.tokens + counts.dropped_tokens, 38);
    EXPECT_EQ(counts.documents, 3);
    EXPECT_EQ(counts.samples * 8, counts.tokens + counts.padding);
  }
}

TEST(Packing, PartsThatTeachNothingAreLeftOut) {
  const auto useful = [](std::uint64_t begin, std::uint32_t) { return begin != 113; };
  const auto cut = plan_of_long(LongDocuments::cut, useful);
  EXPECT_EQ(begins(cut), (std::vector<std::uint64_t>{100, 103}));
  EXPECT_EQ(cut.counts().dropped_documents, 1);
  EXPECT_EQ(cut.counts().truncated_documents, 1);
  EXPECT_EQ(begins(plan_of_long(LongDocuments::split, useful)),
            (std::vector<std::uint64_t>{100, 103, 111, 121, 129, 137}));
}

}  // namespace
}  // namespace shoestring
