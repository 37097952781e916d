#include "kernels/cached_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/kernels/attention_oracle.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using namespace testing;
using testing::attention::Case;
using testing::attention::Problem;

std::vector<Case> cases() {
  return {
      {{1}, 1, 1, 32, 32},
      {{1, 1, 2, 1}, 2, 1, 32, 32},
      {{31, 32, 33}, 2, 2, 64, 64},
      {{5, 3, 1, 7, 40, 9}, 7, 1, 24, 20},  // more queries than go together, dims that fill no vector
      {{130, 64, 3}, 4, 2, 48, 32},
      {{257, 127, 129}, 3, 1, 32, 64},  // around the keys after which sums are corrected
      {{70}, 2, 2, 192, 128},           // DeepSeek-V3's dims
  };
}

/// Documents of a problem as sequences that are fed in calls, whatever is at hand of each.
class Sequences {
 public:
  Sequences(Problem& problem, int workers)
      : problem_(problem),
        workers_(workers),
        stream_(workers_),
        lengths_(problem.shape.documents),
        keys_(dtype(), {slots(), problem.shape.kv_heads, capacity() / 16, problem.shape.qk_dim * 16}),
        values_(dtype(), {slots(), problem.shape.kv_heads, capacity(), problem.shape.v_dim}),
        scratch_(cached_attention_scratch_bytes({problem.shape.tokens(), capacity(), problem.shape.heads,
                                                 problem.shape.kv_heads, problem.shape.qk_dim, problem.shape.v_dim},
                                                workers),
                 Device{}),
        output(dtype(), {problem.shape.tokens(), problem.shape.heads, problem.shape.v_dim}) {
    fill_constant(keys_, 1e4);  // what an earlier sequence has left there
    fill_constant(values_, 1e4);
  }

  /// Calls `run` until all is through; call number i takes of each sequence as many tokens as `count(i, slot)` says.
  template <class Run, class Count>
  void feed(const Run& run, const Count& count) {
    std::vector<std::int64_t> done(lengths_.size());
    for (int call = 0; std::any_of(
             lengths_.begin(), lengths_.end(),
             [&](const auto& length) { return done[static_cast<std::size_t>(&length - lengths_.data())] < length; });
         ++call) {
      rows_.clear();
      slots_.clear();
      positions_.clear();
      std::int64_t first = 0;
      for (std::size_t slot = 0; slot < lengths_.size(); first += lengths_[slot++]) {
        const std::int64_t more = std::min(lengths_[slot] - done[slot], count(call, static_cast<std::int64_t>(slot)));
        for (std::int64_t i = 0; i < more; ++i) {
          rows_.push_back(first + done[slot]);
          slots_.push_back(static_cast<std::int32_t>(slot));
          positions_.push_back(static_cast<std::int32_t>(done[slot]++));
        }
      }
      call_with(run);
    }
  }

  std::int64_t slots() const { return static_cast<std::int64_t>(lengths_.size()); }
  std::int64_t capacity() const { return (*std::max_element(lengths_.begin(), lengths_.end()) + 31) / 16 * 16; }

 private:
  DType dtype() const { return problem_.fused.dtype(); }
  Tensor chosen(TensorView all) const {
    Tensor some(all.dtype, {static_cast<std::int64_t>(rows_.size()), all.shape[1], all.shape[2]});
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      assign(some.view().slice(0, static_cast<std::int64_t>(i), 1), all.slice(0, rows_[i], 1));
    }
    return some;
  }
  template <class Run>
  void call_with(const Run& run) {
    const auto count = static_cast<std::int64_t>(rows_.size());
    const Tensor q = chosen(problem_.q()), k = chosen(problem_.k()), v = chosen(problem_.v());
    Fenced o(dtype(), {count, problem_.shape.heads, problem_.shape.v_dim}, 8);
    run(CachedAttentionArgs{
        o, keys_, values_, q, k, v, view_of(static_cast<const void*>(slots_.data()), DType::i32, {count}),
        view_of(static_cast<const void*>(positions_.data()), DType::i32, {count}), problem_.scale, scratch_, stream_});
    EXPECT_TRUE(o.intact());
    EXPECT_EQ(scratch_.used_bytes(), 0);
    for (std::int64_t i = 0; i < count; ++i) {
      assign(output.view().slice(0, rows_[static_cast<std::size_t>(i)], 1), o.view().slice(0, i, 1));
    }
  }

  Problem& problem_;
  Workers workers_;
  Stream stream_;
  std::vector<std::int64_t> lengths_;
  Tensor keys_, values_;
  Arena scratch_;
  std::vector<std::int64_t> rows_;
  std::vector<std::int32_t> slots_, positions_;

 public:
  Tensor output;  ///< [tokens, heads, v_dim]
};

/// What attention_forward's row of this name gives.
Tensor whole(Problem& problem, std::string_view name) {
  Workers workers(2);
  Stream stream(workers);
  const Case& c = problem.shape;
  attention::Results results = attention::empty_results(c, problem.fused.dtype());
  Arena scratch(attention_scratch_bytes({c.tokens(), 0, c.heads, c.kv_heads, c.qk_dim, c.v_dim}, 2), Device{});
  for (const Variant<AttentionArgs>& row : attention_forward_variants()) {
    if (row.name != name) continue;
    row.run({results.o, results.lse, problem.q(), problem.k(), problem.v(), problem.segment_start, problem.scale,
             scratch, stream});
    return std::move(results.o);
  }
  ADD_FAILURE() << "attention_forward has no row " << name;
  return {};
}

template <class Check>
void for_each_row(const Case& c, Check&& check_row) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (const Variant<CachedAttentionArgs>& row : cached_attention_variants()) {
      SCOPED_TRACE(c.to_string() + " " + std::string(row.name) + " " + std::string(name(dtype)));
      Problem problem(c, dtype);
      bool takes = false;
      Sequences probe(problem, 1);
      probe.feed([&](const CachedAttentionArgs& args) { takes = testing::runs(row, args); },
                 [](int, std::int64_t) { return std::int64_t{1} << 20; });
      if (takes) check_row(row, problem);
    }
  }
}

// However sequences are cut into calls, and whatever else is in a call.
TEST(CachedAttention, GivesTheBitsOfWholeDocuments) {
  for (const Case& c : cases()) {
    for_each_row(c, [&](const Variant<CachedAttentionArgs>& row, Problem& problem) {
      const Tensor expected = whole(problem, row.name);
      const auto run = [&](const CachedAttentionArgs& args) { row.run(args); };
      for (const int workers : {1, 2}) {
        Sequences at_once(problem, workers);
        at_once.feed(run, [](int, std::int64_t) { return std::int64_t{1} << 20; });
        EXPECT_TRUE(same_bits(at_once.output, expected));
      }
      Sequences prompts(problem, 2);  // a prompt of its own length for each, then token by token
      prompts.feed(run, [](int call, std::int64_t slot) { return call == 0 ? 3 + 11 * slot : 1; });
      EXPECT_TRUE(same_bits(prompts.output, expected));
      Sequences parts(problem, 2);
      parts.feed(run, [](int call, std::int64_t slot) { return (call + slot) % 3 * 17; });
      EXPECT_TRUE(same_bits(parts.output, expected));
    });
  }
}

// The comparison above sees a key too few, and one too many.
TEST(CachedAttention, AShiftedPositionIsSeen) {
  const Case c{{40, 33}, 2, 1, 32, 32};
  for_each_row(c, [&](const Variant<CachedAttentionArgs>& row, Problem& problem) {
    const Tensor expected = whole(problem, row.name);
    Sequences shifted(problem, 1);
    shifted.feed(
        [&](CachedAttentionArgs args) {
          std::vector<std::int32_t> positions(args.positions.as<std::int32_t>(),
                                              args.positions.as<std::int32_t>() + args.positions.shape[0]);
          for (std::int32_t& position : positions) position += position == 20 ? 1 : 0;
          args.positions = view_of(static_cast<const void*>(positions.data()), DType::i32, args.positions.shape);
          row.run(args);
        },
        [](int, std::int64_t) { return std::int64_t{1}; });
    EXPECT_FALSE(same_bits(shifted.output, expected));
  });
}

TEST(CachedAttention, RejectsWhatTheContractForbids) {
  Problem problem({{4}, 2, 1, 32, 32}, DType::f32);
  Sequences sequences(problem, 1);
  const auto each = [](int, std::int64_t) { return std::int64_t{4}; };
  sequences.feed(
      [&](CachedAttentionArgs args) {
        const std::vector<std::int32_t> beyond(4, static_cast<std::int32_t>(sequences.capacity())), one(4, 1);
        const auto refused = [&](auto damage) {
          CachedAttentionArgs damaged = args;
          damage(damaged);
          EXPECT_THROW(cached_attention(damaged), Error);
        };
        const auto ids = [](const std::vector<std::int32_t>& values) {
          return view_of(static_cast<const void*>(values.data()), DType::i32, {4});
        };
        refused([&](CachedAttentionArgs& a) { a.positions = ids(beyond); });
        refused([&](CachedAttentionArgs& a) { a.slots = ids(one); });
        refused([](CachedAttentionArgs& a) { a.values = a.values.slice(3, 0, 31); });
        refused([](CachedAttentionArgs& a) { a.scale = 0; });
        cached_attention(args);
      },
      each);
}

}  // namespace
}  // namespace shoestring
