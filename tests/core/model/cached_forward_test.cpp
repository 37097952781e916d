#include "core/model/cached_forward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/variant.h"
#include "tests/core/model/small_models.h"

namespace shoestring::testing {
namespace {

constexpr std::int64_t kTokens = 256;

/// The next token, and what each one lost.
class Losses final : public Objective {
 public:
  void rows(const ObjectiveRows& rows, const LossTotals& sum, Stream& stream) const override {
    next_.rows(rows, sum, stream);
    if (rows.depth != Depth::next) return;
    for (std::int64_t i = 0; i < rows.losses.shape[0]; ++i) each.push_back(double{rows.losses.as<float>()[i]});
  }
  double weight(Depth depth) const override { return next_.weight(depth); }
  mutable std::vector<double> each;

 private:
  NextToken next_{0.3};
};

/// A model, its losses in training on documents of several lengths, and the same tokens continued piece by piece.
class Trained {
 public:
  Trained(const ModelConfig& config, PrecisionPolicy precision, int workers)
      : run(config, policy(precision), 1, 1, kTokens, workers, &losses_) {
    std::int32_t begin = 0;
    for (const std::int32_t length : {1, 5, 37, 150, 63}) {
      starts.push_back(begin);
      for (std::int32_t i = 0; i < length; ++i) {
        const auto at = static_cast<std::size_t>(begin + i);
        run.batch.segment_start[at] = begin;
        run.batch.targets[at] = i + 1 < length ? run.batch.inputs[at + 1] : 7;
      }
      begin += length;
    }
    starts.push_back(begin);
    run.step();
  }
  const std::vector<double>& losses() const { return losses_.each; }

  /// The same by generation: call `i` takes count(i) tokens of each document.
  template <class Count>
  std::vector<double> continued(const Count& count, bool latents = false) {
    const auto documents = static_cast<std::int64_t>(starts.size()) - 1;
    CachedForward forward(run.model, {.slots = documents, .capacity = 160, .rows = kTokens, .latents = latents});
    std::vector<double> result(kTokens);
    for (int call = 0; std::any_of(result.begin(), result.end(), [](double x) { return x == 0; }); ++call) {
      std::vector<CachedForward::Piece> pieces;
      std::vector<std::int32_t> rows, targets, places;
      for (std::int64_t d = documents; d-- > 0;) {  // not in the order of training
        const std::int64_t done = starts[static_cast<std::size_t>(d)] + forward.length(d);
        const std::int64_t more = std::min<std::int64_t>(starts[static_cast<std::size_t>(d) + 1] - done, count(call));
        pieces.push_back(
            {d, std::span(run.batch.inputs).subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(more))});
        for (std::int64_t i = 0; i < more; ++i) {
          rows.push_back(static_cast<std::int32_t>(rows.size()));
          places.push_back(static_cast<std::int32_t>(done + i));
          targets.push_back(run.batch.targets[static_cast<std::size_t>(done + i)]);
        }
      }
      forward.append(pieces);
      const std::vector<double> found = forward.log_probabilities(rows, targets);
      for (std::size_t i = 0; i < rows.size(); ++i) result[static_cast<std::size_t>(places[i])] = -found[i];
    }
    return result;
  }

 private:
  Losses losses_;

 public:
  SmallRun run;
  std::vector<std::int32_t> starts;
};

/// Training's attention in the row that adds up as cached attention does, where AMX has one with an order of its own
/// (cached_attention.h).
class SameOrder {
 public:
  SameOrder() {
    if (cpu_features().vectors()) pin_variant("attention_forward", "simd");
  }
  ~SameOrder() { pin_variant("attention_forward", ""); }
};

std::string label(Architecture architecture) { return std::string(name(architecture)); }

class CachedArchitectures : public ::testing::TestWithParam<Architecture> {};
INSTANTIATE_TEST_SUITE_P(CachedForward, CachedArchitectures,
                         ::testing::Values(Architecture::llama, Architecture::qwen2, Architecture::qwen3,
                                           Architecture::qwen3_moe, Architecture::deepseek_v2,
                                           Architecture::deepseek_v3),
                         [](const auto& tested) { return label(tested.param); });

// Probabilities of generated tokens are those of a training forward pass, bit for bit: what reinforcement learning
// divides by each other.
TEST_P(CachedArchitectures, ProbabilitiesAreThoseOfTraining) {
  const SameOrder pinned;
  for (const PrecisionPolicy format :
       {PrecisionPolicy::fp32, PrecisionPolicy::bf16, PrecisionPolicy::fp8_block, PrecisionPolicy::mxfp8}) {
    SCOPED_TRACE(static_cast<int>(format));
    Trained trained(tiled_config(GetParam()), format, 2);
    ASSERT_EQ(trained.losses().size(), static_cast<std::size_t>(kTokens));
    EXPECT_EQ(trained.continued([](int call) { return call == 0 ? 11 : 1; }), trained.losses());
    EXPECT_EQ(trained.continued([](int) { return kTokens; }), trained.losses());
  }
}

// Kept latents are the same attention but for rounding: of single precision, or of what BF16 leaves of the queries. In
// BF16 that tips a few tokens over to another expert, whose losses are then others.
TEST(CachedForward, KeptLatentsAgreeWithinRounding) {
  for (const auto& [format, bound, most_tipped] : {std::tuple{PrecisionPolicy::fp32, 2e-5, std::int64_t{0}},
                                                   std::tuple{PrecisionPolicy::bf16, 0.05, kTokens / 20}}) {
    for (const Architecture architecture : {Architecture::deepseek_v2, Architecture::deepseek_v3}) {
      Trained trained(tiled_config(architecture), format, 2);
      const auto count = [](int call) { return call == 0 ? 11 : 1; };
      const std::vector<double> found = trained.continued(count, true);
      std::int64_t tipped = 0;
      for (std::size_t i = 0; i < found.size(); ++i) {
        tipped += std::abs(found[i] - trained.losses()[i]) > bound ? 1 : 0;
      }
      EXPECT_LE(tipped, most_tipped) << "of " << kTokens;
      EXPECT_EQ(found, trained.continued([](int) { return kTokens; }, true));
      EXPECT_NE(found, trained.losses());
    }
  }
  const ModelConfig config = tiled_config(Architecture::deepseek_v3);  // 4 heads of 48 and 32; latents of 128, and 16
  const auto bytes = [&](bool latents) {
    DryMemory dry;
    const KeyValueCache cache(config, DType::bf16, {.slots = 3, .capacity = 20, .latents = latents}, {.dry = &dry});
    return dry.of(DeviceKind::cpu).now_bytes;
  };
  EXPECT_EQ(bytes(false), 2 * 3 * 32 * 4 * (48 + 32) * 2);
  EXPECT_EQ(bytes(true), 2 * 3 * 32 * (144 + 128) * 2);
  SmallRun grouped(small_config(Architecture::llama), policy(PrecisionPolicy::fp32));
  EXPECT_THROW(CachedForward(grouped.model, {.slots = 1, .capacity = 8, .rows = 8, .latents = true}), Error);
}

// With one scale for a whole tensor a row depends on what else is in the batch, in training as here: near, not equal.
TEST(CachedForward, OneScaleForATensorMakesRowsDependOnEachOther) {
  Trained trained(tiled_config(Architecture::llama), PrecisionPolicy::fp8_tensor, 1);
  const std::vector<double> found = trained.continued([](int call) { return call == 0 ? 11 : 1; });
  EXPECT_NE(found, trained.losses());
  double worst = 0;
  for (std::size_t i = 0; i < found.size(); ++i) worst = std::max(worst, std::abs(found[i] - trained.losses()[i]));
  RecordProperty("worst_difference_in_nats", std::to_string(worst));
  EXPECT_LT(worst, 0.5);
}

// The comparison sees one token of the past that is another one.
TEST(CachedForward, AnotherPastIsSeen) {
  const SameOrder pinned;
  Trained trained(tiled_config(Architecture::llama), PrecisionPolicy::bf16, 1);
  const auto place = static_cast<std::size_t>(trained.starts[3] + 2);
  trained.run.batch.inputs[place] = (trained.run.batch.inputs[place] + 1) % 256;
  const std::vector<double> found = trained.continued([](int) { return kTokens; });
  const auto begin = static_cast<std::ptrdiff_t>(trained.starts[3] + 3);
  const auto end = static_cast<std::ptrdiff_t>(trained.starts[4]);
  for (std::ptrdiff_t i = begin; i < end; ++i) {
    EXPECT_NE(found[static_cast<std::size_t>(i)], trained.losses()[static_cast<std::size_t>(i)]) << i;
  }
  EXPECT_TRUE(std::equal(found.begin(), found.begin() + trained.starts[3], trained.losses().begin()));
}

// What a slot forgets leaves nothing behind.
TEST(CachedForward, ASlotIsUsedAgain) {
  SmallRun run(small_config(Architecture::deepseek_v3), policy(PrecisionPolicy::fp32));
  CachedForward forward(run.model, {.slots = 1, .capacity = 20, .rows = 8});
  const std::vector<std::int32_t> first{3, 1, 4, 1, 5}, second{2, 7}, last{1};
  const auto logits_of_second = [&] {
    forward.append(std::vector<CachedForward::Piece>{{0, second}});
    return forward.logits(last).front();
  };
  const std::vector<float> fresh = logits_of_second();
  forward.keep(0, 0);
  forward.append(std::vector<CachedForward::Piece>{{0, first}});
  const std::vector<float> behind = logits_of_second();
  EXPECT_NE(behind, fresh);
  forward.keep(0, 5);
  EXPECT_EQ(logits_of_second(), behind);
  forward.keep(0, 0);
  EXPECT_EQ(logits_of_second(), fresh);
}

TEST(CachedForward, RefusesWhatHasNoRoom) {
  SmallRun run(small_config(Architecture::llama), policy(PrecisionPolicy::fp32));
  EXPECT_THROW(CachedForward(run.model, {.slots = 1, .capacity = 65, .rows = 4}), Error);  // 64 positions
  CachedForward forward(run.model, {.slots = 2, .capacity = 6, .rows = 4});
  const std::vector<std::int32_t> four{1, 2, 3, 4}, five{1, 2, 3, 4, 5}, foreign{61};
  EXPECT_THROW(forward.append(std::vector<CachedForward::Piece>{{0, five}}), Error);
  forward.append(std::vector<CachedForward::Piece>{{0, four}});
  EXPECT_THROW(forward.append(std::vector<CachedForward::Piece>{{0, four}}), Error);
  EXPECT_THROW(forward.append(std::vector<CachedForward::Piece>{{1, foreign}}), Error);
  EXPECT_EQ(forward.length(0), 4);
  EXPECT_EQ(forward.length(1), 0);
  const std::vector<std::int32_t> beyond{4};
  EXPECT_THROW(forward.logits(beyond), Error);
}

// Generation takes neither gradients nor what the backward pass reads of the weights.
TEST(CachedForward, AModelThatIsNotTrainedIsSmaller) {
  const ModelConfig config = tiled_config(Architecture::deepseek_v3);
  SmallRun whole(config, policy(PrecisionPolicy::bf16), 1, 1, 8);
  Workers workers(1);
  Stream stream(workers);
  Transformer model({.model = config,
                     .precision = policy(PrecisionPolicy::bf16),
                     .run = {8, 1, 1},
                     .own_stages = {},
                     .trains = false});
  model.allocate(stream);
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    copy_tensor(model.parameters()[i]->value, whole.model.parameters()[i]->value, stream);
  }
  model.prepare();
  EXPECT_EQ(model.memory().gradients, 0);
  EXPECT_EQ(model.memory().saved, 0);
  EXPECT_TRUE(model.store().gradients.empty());
  const std::vector<std::int32_t> tokens{9, 8, 7}, last{2};
  const auto logits = [&](Transformer& of) {
    CachedForward forward(of, {.slots = 1, .capacity = 8, .rows = 8});
    forward.append(std::vector<CachedForward::Piece>{{0, tokens}});
    return forward.logits(last).front();
  };
  EXPECT_EQ(logits(model), logits(whole.model));
}

}  // namespace
}  // namespace shoestring::testing
