#include "kernels/fill.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/support/fill.h"

namespace shoestring::testing {
namespace {

TEST(Fill, WritesEveryElementAndNoOther) {
  for (const int count : {1, 3}) {
    Workers workers(count);
    Stream stream(workers);
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32}) {
      for (const std::int64_t elements : {0, 1, 31, 16384, 50001}) {
        Tensor whole(dtype, {elements + 2});
        fill(whole.view().slice(0, 1, elements), -3.0, stream);
        EXPECT_EQ(value_at(whole.view(), 0), 0);
        EXPECT_EQ(value_at(whole.view(), elements + 1), 0);
        for (std::int64_t i = 1; i <= elements; ++i) ASSERT_EQ(value_at(whole.view(), i), -3.0) << name(dtype);
      }
    }
  }
}

TEST(Fill, RoundsToTheFormat) {
  Workers workers(1);
  Stream stream(workers);
  Tensor narrow(DType::bf16, {2});
  fill(narrow, 1.001, stream);
  EXPECT_EQ(value_at(narrow.view(), 1), 1.0);
}

TEST(Fill, RefusesWhatItCannotFill) {
  Workers workers(1);
  Stream stream(workers);
  Tensor matrix(DType::f32, {4, 4});
  EXPECT_THROW(fill(matrix.view().slice(1, 0, 2), 0, stream), Error);
  Tensor codes(DType::e4m3, {4});
  EXPECT_THROW(fill(codes, 0, stream), Error);
}

}  // namespace
}  // namespace shoestring::testing
