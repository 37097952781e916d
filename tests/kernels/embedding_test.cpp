#include "kernels/embedding.h"

#include <gtest/gtest.h>

#include <string>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using namespace testing;

constexpr std::int64_t kVocabulary = 11;  // few ids, so that tokens share rows

Tensor some_ids(std::int64_t tokens) {
  Tensor ids(DType::i32, {tokens});
  fill_integers(ids, 7, 0, kVocabulary);
  return ids;
}

TEST(Embedding, ForwardCopiesRows) {
  Workers workers(2);
  Stream stream(workers);
  for (const std::int64_t hidden : {1, 15, 16, 17, 64, 200}) {
    for (const DType from : {DType::f64, DType::f32, DType::bf16}) {
      for (const DType to : {DType::f64, DType::f32, DType::bf16}) {
        const Tensor table = normal(from, {kVocabulary, hidden + 5}, 1);
        const ConstTensorView rows = table.view().slice(1, 0, hidden);
        const Tensor ids = some_ids(33);
        Tensor expected(to, {33, hidden});
        for (std::int64_t i = 0; i < expected.view().elements(); ++i) {
          set_value(expected, i, value_at(rows, ids.as<std::int32_t>()[i / hidden] * hidden + i % hidden));
        }
        for (const Variant<EmbeddingArgs>& variant : embedding_forward_variants()) {
          SCOPED_TRACE(fmt::format("{} {} {} {}", variant.name, hidden, name(from), name(to)));
          Fenced y(to, {33, hidden}, 3);
          const EmbeddingArgs args{y, rows, ids, stream};
          if (!testing::runs(variant, args)) continue;
          variant.run(args);
          EXPECT_TRUE(same_bits(y, expected));
          EXPECT_TRUE(y.intact());
        }
      }
    }
  }
}

// Accumulation in token order has one right answer, bit for bit, whatever the workers.
TEST(Embedding, BackwardAddsInTokenOrder) {
  for (const std::int64_t hidden : {1, 31, 64, 200}) {
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      const DType sum = dtype == DType::f64 ? DType::f64 : DType::f32;
      const Tensor dy = heavy_tailed(dtype, {70, hidden}, 2);
      const Tensor ids = some_ids(70);
      const Tensor before = normal(sum, {kVocabulary, hidden}, 3);
      Tensor expected = copy(before);
      for (std::int64_t i = 0; i < 70 * hidden; ++i) {
        const std::int64_t at = ids.as<std::int32_t>()[i / hidden] * hidden + i % hidden;
        set_value(expected, at, value_at(expected, at) + value_at(dy, i));
      }
      for (const int count : {1, 2, 3}) {
        Workers workers(count);
        Stream stream(workers);
        for (const Variant<EmbeddingBackwardArgs>& variant : embedding_backward_variants()) {
          SCOPED_TRACE(fmt::format("{} {} {} {}", variant.name, hidden, name(dtype), count));
          Fenced dtable(sum, {kVocabulary, hidden}, 3);
          assign(dtable, before);
          const EmbeddingBackwardArgs args{dtable, dy, ids, stream};
          if (!testing::runs(variant, args)) continue;
          variant.run(args);
          EXPECT_TRUE(same_bits(dtable, expected));
          EXPECT_TRUE(dtable.intact());
        }
      }
    }
  }
}

TEST(Embedding, GradientMatchesCentralDifferences) {
  Workers workers(1);
  Stream stream(workers);
  Tensor table = normal(DType::f64, {kVocabulary, 6}, 1);
  const Tensor ids = some_ids(20);
  const Tensor weights = normal(DType::f64, {20, 6}, 2);
  const auto loss = [&] {
    Tensor y(DType::f64, {20, 6});
    embedding_forward({y, table, ids, stream});
    return projection(y, weights);
  };
  Tensor gradient(DType::f64, {kVocabulary, 6});
  embedding_backward({gradient, weights, ids, stream});
  EXPECT_TRUE(gradient_matches(loss, table, gradient));
}

TEST(Embedding, NamesTheTokenWithABadId) {
  Workers workers(1);
  Stream stream(workers);
  const Tensor table(DType::f32, {kVocabulary, 8});
  Tensor ids = some_ids(20);
  for (const std::int32_t wrong : {-1, 11}) {
    ids.as<std::int32_t>()[13] = wrong;
    Tensor y(DType::f32, {20, 8});
    try {
      embedding_forward({y, table, ids, stream});
      FAIL() << "no error for id " << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_NE(std::string(error.what()).find(fmt::format("token 13 has id {}", wrong)), std::string::npos);
    }
    Tensor dtable(DType::f32, {kVocabulary, 8});
    EXPECT_THROW(embedding_backward({dtable, y, ids, stream}), Error);
  }
}

}  // namespace
}  // namespace shoestring
