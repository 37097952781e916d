#include "core/model/initialise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"

namespace shoestring::testing {
namespace {

/// A parameter of the named slices, each of `rows` rows, with memory.
struct Owned {
  Owned(const std::vector<std::string>& names, std::int64_t rows, std::int64_t columns, DType dtype = DType::f32)
      : values(dtype, {static_cast<std::int64_t>(names.size()) * rows, columns}) {
    for (std::size_t i = 0; i < names.size(); ++i) {
      parameter.slices.push_back({names[i], static_cast<std::int64_t>(i) * rows, rows, {rows, columns}});
    }
    parameter.rows = values.shape()[0];
    parameter.columns = columns;
    parameter.init_std = 0.02;
    parameter.value = values;
  }
  Tensor values;
  Parameter parameter;
};

TEST(Initialise, DependsOnTheDiskNameAlone) {
  Workers one(1);
  Workers three(3);
  Stream narrow(one);
  Stream wide(three);
  Owned fused({"a", "b"}, 300, 40);
  Owned alone({"b"}, 300, 40);
  initialise_parameter(fused.parameter, 7, narrow);
  initialise_parameter(alone.parameter, 7, wide);
  EXPECT_EQ(std::memcmp(fused.values.as<float>() + 300 * 40, alone.values.as<float>(), 300 * 40 * sizeof(float)), 0);
  EXPECT_NE(std::memcmp(fused.values.as<float>(), alone.values.as<float>(), 300 * 40 * sizeof(float)), 0);
  Owned other_seed({"b"}, 300, 40);
  initialise_parameter(other_seed.parameter, 8, narrow);
  EXPECT_NE(std::memcmp(other_seed.values.as<float>(), alone.values.as<float>(), 300 * 40 * sizeof(float)), 0);
}

// Drawing a large model takes minutes: it tells of pieces, and can be left between them.
TEST(Initialise, TellsHowMuchIsDrawnAndCanBeLeft) {
  Workers workers(1);
  Stream stream(workers);
  Owned owned({"a", "b"}, 600, 1000);
  std::vector<std::int64_t> pieces;
  initialise_parameter(owned.parameter, 7, stream, [&](std::int64_t elements) { pieces.push_back(elements); });
  EXPECT_EQ(pieces, (std::vector<std::int64_t>{600000, 600000}));
  int told = 0;
  EXPECT_THROW(initialise_parameter(owned.parameter, 7, stream,
                                    [&](std::int64_t) {
                                      ++told;
                                      fail(ExitCode::preempted, "left; run it again");
                                    }),
               Error);
  EXPECT_EQ(told, 1);
}

TEST(Initialise, HasTheDeviationAskedFor) {
  Workers workers(2);
  Stream stream(workers);
  Owned owned({"w"}, 400, 100);
  initialise_parameter(owned.parameter, 7, stream);
  double sum = 0;
  double squares = 0;
  for (std::int64_t i = 0; i < 40000; ++i) {
    const double value = owned.values.as<float>()[i];
    sum += value;
    squares += value * value;
  }
  EXPECT_NEAR(sum / 40000, 0, 5 * 0.02 / 200);                    // five standard errors
  EXPECT_NEAR(std::sqrt(squares / 40000), 0.02, 5 * 0.02 / 283);  // of the deviation: 1 / sqrt(2n)
}

// A run in double starts from the very weights of a run in single precision.
TEST(Initialise, DoubleHoldsTheSameValues) {
  Workers workers(1);
  Stream stream(workers);
  Owned single({"w"}, 10, 10);
  Owned wide({"w"}, 10, 10, DType::f64);
  initialise_parameter(single.parameter, 7, stream);
  initialise_parameter(wide.parameter, 7, stream);
  for (std::int64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(wide.values.as<double>()[i], double{single.values.as<float>()[i]});
  }
  wide.parameter.init_std = 0;
  wide.parameter.init_value = 1;
  initialise_parameter(wide.parameter, 7, stream);
  EXPECT_EQ(wide.values.as<double>()[99], 1);
}

}  // namespace
}  // namespace shoestring::testing
