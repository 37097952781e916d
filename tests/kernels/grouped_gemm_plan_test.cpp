// What of grouped products in one call can be tried without the library and without a device: which of them are
// declined and why, by which versions of the library, and how their matrices are described.
#include "kernels/grouped_gemm_plan.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/workers.h"
#include "tests/kernels/grouped_on_device.h"

namespace shoestring {
namespace {

namespace cublaslt = gemm_detail::cublaslt;
using cublaslt::kLeft;
using cublaslt::kResult;
using cublaslt::kRight;
using cublaslt::kRowsOfGroup;
using testing::kGroupedDevice;

class GroupedPlan : public testing::GroupedOnDevice {
 protected:
  template <class Args>
  static std::string reason(Args args, const std::function<void(Args&)>& change = {}) {
    if (change) change(args);
    return cublaslt::refuses_arguments(args, kGroupedDevice);
  }
};

TEST_F(GroupedPlan, TakesWhatItCan) {
  for (const DType c : {DType::bf16, DType::f32}) {
    EXPECT_EQ(reason(forward(DType::bf16, c)), "");
    EXPECT_EQ(reason(input_gradient(c)), "");
    EXPECT_EQ(reason(weight_gradient(DType::bf16, c)), "");
  }
  for (const Granularity scales : {kPerTensor, kBlock128}) EXPECT_EQ(reason(codes(scales)), "");
  for (const Granularity scales : {kPerTensor, kColumnTile128}) EXPECT_EQ(reason(weight_codes(scales)), "");
}

TEST_F(GroupedPlan, DeclinesOperandsByName) {
  const std::vector<std::pair<std::function<void(GroupedGemmArgs&)>, std::string>> cases = {
      {[](GroupedGemmArgs& g) { g.c.device = {}; }, "cpu holds c"},
      {[](GroupedGemmArgs& g) { g.device_offsets.device = {}; }, "cpu holds the offsets"},
      {[](GroupedGemmArgs& g) { g.b.granularity = kRowTile128; },
       "scales of 1x128 of stacked weights: 128x128 is what one call takes"},
      {[](GroupedGemmArgs& g) { g.a.granularity = kBlock128; },
       "scales of 128x128 would have to restart at every group"},
      {[](GroupedGemmArgs& g) { g.a.granularity = kRowTile32; },
       "scales of a are neither per tensor, 1x128 nor 128x128"},
      {[](GroupedGemmArgs& g) { g.a.values.data = static_cast<const char*>(g.a.values.data) + 8; },
       "a is not aligned to 16 bytes"},
      {[](GroupedGemmArgs& g) { g.c.strides[0] += 4; }, "rows of c are not a multiple of 16 bytes apart"},
      {[](GroupedGemmArgs& g) {
         static constexpr std::int64_t kOdd[] = {0, 40, 64, 240};
         g.offsets = kOdd;
       },
       "groups begin at other rows than multiples of 16"},
  };
  for (const auto& [change, text] : cases) EXPECT_EQ(reason<GroupedGemmArgs>(codes(kBlock128), change), text);
  EXPECT_EQ(reason(forward(DType::f32, DType::f32)), "cuBLASLt groups products of bf16 and of 8-bit operands, not f32");
  EXPECT_EQ(reason<GroupedGemmArgs>(forward(DType::bf16, DType::bf16),
                                    [](GroupedGemmArgs& g) { g.a.values.strides[0] += 4; }),
            "rows of a are not a multiple of 16 bytes apart");
}

TEST_F(GroupedPlan, OddGroupsOfBf16AreTaken) {
  static constexpr std::int64_t kOdd[] = {0, 41, 41, 240};
  const auto odd = [](auto& g) { g.offsets = kOdd; };
  EXPECT_EQ(reason<GroupedGemmArgs>(forward(DType::bf16, DType::bf16), odd), "");
  EXPECT_EQ(reason<GroupedWeightGemmArgs>(weight_gradient(DType::bf16, DType::f32), odd), "");
}

TEST_F(GroupedPlan, DeclinesLibrariesByTheirFaults) {
  const std::string old = "grouped products need cuBLASLt 13.4, this is ";
  EXPECT_EQ(cublaslt::refuses_library(130100, 90, false), old + "13.1.0");
  EXPECT_EQ(cublaslt::refuses_library(130301, 100, true), old + "13.3.1");
  EXPECT_EQ(cublaslt::refuses_library(131000, 90, false), old + "13.10.0");  // without the function
  const std::string hangs =
      "grouped products that use one workspace after each other may hang on sm_90 in cuBLASLt 13.4.0 to 13.6.0, this "
      "is ";
  EXPECT_EQ(cublaslt::refuses_library(130401, 90, true), hangs + "13.4.1");
  EXPECT_EQ(cublaslt::refuses_library(130600, 90, true), hangs + "13.6.0");
  EXPECT_EQ(cublaslt::refuses_library(130601, 90, true), "");
  EXPECT_EQ(cublaslt::refuses_library(130600, 100, true), "");
  for (const std::size_t version : {130700, 130800}) {
    EXPECT_NE(cublaslt::refuses_library(version, 103, true), "");
    EXPECT_EQ(cublaslt::refuses_library(version, 90, true), "");
  }
  EXPECT_EQ(cublaslt::refuses_library(130801, 103, true), "");
  for (const int capability : {80, 89, 120}) {
    EXPECT_EQ(cublaslt::refuses_library(131000, capability, true),
              "grouped products run on sm_90, sm_100 and sm_110, this is sm_" + std::to_string(capability));
  }
}

TEST_F(GroupedPlan, ExtentsAreThoseOfColumns) {
  struct Extents {
    int rows, columns, leading;
  };
  const auto expect = [](const cublaslt::GroupedPlan& plan, const std::vector<Extents>& want) {
    for (const std::size_t side : {kLeft, kRight, kResult}) {
      EXPECT_EQ(plan.setup.matrix[side].rows, want[side].rows) << side;
      EXPECT_EQ(plan.setup.matrix[side].columns, want[side].columns) << side;
      EXPECT_EQ(plan.setup.matrix[side].leading, want[side].leading) << side;
    }
  };
  constexpr int kGroup = kRowsOfGroup, n = kN, k = kK, rows = kRows;
  const auto forward_plan = cublaslt::plan_of(forward(DType::bf16, DType::bf16));
  expect(forward_plan, {{k, n, k}, {k, kGroup, k}, {n, kGroup, n}});
  EXPECT_TRUE(forward_plan.turn_left && !forward_plan.turn_right);
  const auto input_plan = cublaslt::plan_of(input_gradient(DType::bf16));
  expect(input_plan, {{k, n, k}, {n, kGroup, n}, {k, kGroup, k}});
  EXPECT_TRUE(!input_plan.turn_left && !input_plan.turn_right);
  const auto weight_plan = cublaslt::plan_of(weight_gradient(DType::bf16, DType::f32));
  expect(weight_plan, {{k, kGroup, k}, {n, kGroup, n}, {k, n, k}});
  EXPECT_TRUE(!weight_plan.turn_left && weight_plan.turn_right);
  const auto codes_plan = cublaslt::plan_of(weight_codes(kColumnTile128));
  expect(codes_plan, {{kGroup, k, rows}, {kGroup, n, rows}, {k, n, k}});
  EXPECT_TRUE(codes_plan.turn_left && !codes_plan.turn_right);
  EXPECT_EQ(codes_plan.average[2], kRows / kGroups);
}

TEST_F(GroupedPlan, ScratchHoldsTheArrays) {
  Arena arena(1 << 20, Device{});
  cublaslt::GroupedPlan plan = cublaslt::plan_of(codes(kBlock128));
  cublaslt::take_arrays(plan, arena);
  EXPECT_NE(plan.setup.scale_rows.to, nullptr);
  EXPECT_LE(arena.used_bytes(),
            cublaslt::grouped_scratch_bytes(plan.setup.groups, testing::kGroupedRows, testing::kGroupedK));
}

TEST_F(GroupedPlan, KeyHoldsWhatDecides) {
  const auto key = [&](const GroupedGemmArgs& args, std::int64_t workspace = 0) {
    return cublaslt::key_of(cublaslt::plan_of(args), workspace, 0);
  };
  const GroupedGemmArgs args = forward(DType::bf16, DType::bf16);
  GroupedGemmArgs moved = args;
  moved.a.values.data = static_cast<const char*>(args.a.values.data) + 4096;
  EXPECT_EQ(key(moved), key(args));
  GroupedGemmArgs adds = args;
  adds.accumulate = true;
  for (const GroupedGemmArgs& other :
       {adds, forward(DType::bf16, DType::f32), input_gradient(DType::bf16), codes(kPerTensor), codes(kBlock128)}) {
    EXPECT_NE(key(other), key(args));
  }
  EXPECT_NE(key(args, 256), key(args));
  EXPECT_NE(key(codes(kPerTensor)), key(codes(kBlock128)));
}

}  // namespace
}  // namespace shoestring
