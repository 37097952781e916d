#include "core/optimizer/shards.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "core/model/transformer.h"
#include "tests/core/model/small_models.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

/// A declared model whose token table is larger than a piece.
std::unique_ptr<Transformer> declared(Architecture architecture) {
  ModelSpec spec = small_spec(architecture);
  spec.vocabulary = 50000;
  spec.tie_embeddings = false;
  return std::make_unique<Transformer>(TransformerOptions{.model = resolve_model(spec, 0, 0),
                                                          .precision = policy(PrecisionPolicy::fp32),
                                                          .run = {1, 1, 1},
                                                          .own_stages = {}});
}

StorePlan store_of(const Transformer& model) { return StorePlan(model.parameters(), DType::f32); }

// Every weight is moved by one rank of those that hold it, dense ones along the data axis, experts along the replicas.
TEST(ParameterShards, EveryElementHasOneOwner) {
  const std::unique_ptr<Transformer> model = declared(Architecture::deepseek_v3);
  for (const OptimizerName optimizer : {OptimizerName::adamw, OptimizerName::muon}) {
    for (const MeshShape& shape : {MeshShape{.data = 1}, MeshShape{.data = 4}, MeshShape{.data = 4, .expert = 2}}) {
      std::map<const Parameter*, std::int64_t> covered;
      for (int rank = 0; rank < shape.ranks(); ++rank) {
        const ParameterShards shards(store_of(*model), optimizer, shape, coordinates_of(shape, rank));
        for (const ParameterPart& part : shards.parts()) {
          covered[part.parameter] += part.elements;
          EXPECT_TRUE(shards.owns(*part.parameter, part.begin));
          EXPECT_TRUE(shards.owns(*part.parameter, part.begin, part.elements));
          EXPECT_FALSE(shards.owns(*part.parameter, part.begin, part.elements + 1));
        }
      }
      for (const Parameter* parameter : model->parameters()) {
        const bool statistic = parameter->role == ParameterRole::statistic;
        const int times = statistic ? 0 : parameter->of_experts() ? shape.expert : 1;
        EXPECT_EQ(covered[parameter], times * parameter->elements()) << parameter->slices.front().name;
      }
    }
  }
}

// As even as units allow, also where the token table has two moments and matrices one; and a token table, larger than a
// piece, is cut at one.
TEST(ParameterShards, AreEven) {
  const std::unique_ptr<Transformer> model = declared(Architecture::llama);
  const MeshShape shape{.data = 4};
  for (const OptimizerName optimizer : {OptimizerName::adamw, OptimizerName::muon}) {
    bool cut = false;
    std::vector<std::int64_t> moments;
    for (int rank = 0; rank < 4; ++rank) {
      const ParameterShards shards(store_of(*model), optimizer, shape, coordinates_of(shape, rank));
      moments.push_back(0);
      for (const ParameterPart& part : shards.parts()) {
        const bool muon = optimizer == OptimizerName::muon && part.parameter->role == ParameterRole::matrix;
        moments.back() += (muon ? 1 : 2) * part.elements;
        if (part.parameter->role != ParameterRole::embedding || part.begin == 0) continue;
        EXPECT_EQ(part.begin % kPieceElements, 0);
        cut = true;
      }
    }
    EXPECT_TRUE(cut);
    // The fullest got its last unit when it had the least.
    const auto [least, most] = std::ranges::minmax_element(moments);
    EXPECT_LE(*most, *least + 2 * kPieceElements);
  }
}

// A token table, which AdamW moves, has twice the state of a matrix of its size.
TEST(ParameterShards, StateIsEvenUnderMuon) {
  ModelSpec spec = small_spec(Architecture::llama);
  spec.tie_embeddings = true;
  const Transformer model({.model = resolve_model(spec, 0, 0),
                           .precision = policy(PrecisionPolicy::fp32),
                           .run = {1, 1, 1},
                           .own_stages = {}});
  std::int64_t all = 0;
  std::vector<std::int64_t> moments(2, 0);
  const MeshShape shape{.data = 2};
  for (int rank = 0; rank < 2; ++rank) {
    const ParameterShards shards(store_of(model), OptimizerName::muon, shape, coordinates_of(shape, rank));
    for (const ParameterPart& part : shards.parts()) {
      const std::int64_t state = (part.parameter->role == ParameterRole::matrix ? 1 : 2) * part.elements;
      moments[static_cast<std::size_t>(rank)] += state;
      all += state;
    }
  }
  for (const std::int64_t own : moments) EXPECT_LE(std::abs(2 * own - all), all / 10);
}

TEST(ParameterShards, MatricesOfMuonStayWhole) {
  const std::unique_ptr<Transformer> model = declared(Architecture::llama);
  const MeshShape shape{.data = 7};
  for (int rank = 0; rank < 7; ++rank) {
    const ParameterShards shards(store_of(*model), OptimizerName::muon, shape, coordinates_of(shape, rank));
    for (const ParameterPart& part : shards.parts()) {
      if (part.parameter->role != ParameterRole::matrix) continue;
      for (const ParameterSlice& slice : part.parameter->slices) {
        const std::int64_t begin = slice.begin * part.parameter->columns;
        const std::int64_t elements = slice.rows * part.parameter->columns;
        const bool first = shards.owns(*part.parameter, begin);
        EXPECT_EQ(first, shards.owns(*part.parameter, begin + elements - 1)) << slice.name;
        EXPECT_EQ(first, shards.owns(*part.parameter, begin, elements)) << slice.name;
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
