#include "core/optimizer/shards.h"

#include <gtest/gtest.h>

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
          EXPECT_TRUE(shards.owns(*part.parameter, part.begin + part.elements - 1));
          EXPECT_FALSE(shards.owns(*part.parameter, part.begin + part.elements));
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

// As even as pieces allow; and a token table, larger than a piece, is cut at one.
TEST(ParameterShards, AreEven) {
  const std::unique_ptr<Transformer> model = declared(Architecture::llama);
  const StorePlan store = store_of(*model);
  const MeshShape shape{.data = 4};
  bool cut = false;
  for (int rank = 0; rank < 4; ++rank) {
    const ParameterShards shards(store, OptimizerName::adamw, shape, coordinates_of(shape, rank));
    EXPECT_LE(shards.dense().range(rank).elements(), store.dense.elements() / 4 + kPieceElements);
    for (const ParameterPart& part : shards.parts()) {
      if (part.begin == 0) continue;
      EXPECT_EQ(part.begin % kPieceElements, 0);
      cut = true;
    }
  }
  EXPECT_TRUE(cut);
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
        const std::int64_t last = begin + slice.rows * part.parameter->columns - 1;
        EXPECT_EQ(shards.owns(*part.parameter, begin), shards.owns(*part.parameter, last)) << slice.name;
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
