#include "core/model/device_precision.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

PrecisionSpec spec(PrecisionPolicy policy, bool native = false) {
  PrecisionSpec made;
  made.policy = policy;
  made.native = native;
  return made;
}

TEST(DevicePrecision, ComputeCapabilitiesHaveTheirColumns) {
  EXPECT_EQ(compute_kind(80), ComputeKind::sm_80);
  EXPECT_EQ(compute_kind(86), ComputeKind::sm_80);
  EXPECT_EQ(compute_kind(89), ComputeKind::sm_89);
  EXPECT_EQ(compute_kind(90), ComputeKind::sm_90);
  EXPECT_EQ(compute_kind(103), ComputeKind::sm_100);
  for (const int other : {70, 75, 120, 0}) EXPECT_FALSE(compute_kind(other)) << other;
}

TEST(DevicePrecision, EveryPolicyIsInTheTableForEveryKind) {
  for (const PrecisionPolicy policy :
       {PrecisionPolicy::fp64, PrecisionPolicy::fp32, PrecisionPolicy::bf16, PrecisionPolicy::fp8_block,
        PrecisionPolicy::fp8_tensor, PrecisionPolicy::mxfp8}) {
    for (const bool experts : {false, true}) {
      EXPECT_NE(device_precision(spec(policy), experts, ComputeKind::cpu).how, Becomes::refused);
      for (int kind = 0; kind < kComputeKinds; ++kind) {
        EXPECT_FALSE(device_precision(spec(policy), experts, static_cast<ComputeKind>(kind)).text.empty());
      }
    }
  }
}

TEST(DevicePrecision, BlockFp8IsRealOnHopperAlone) {
  const PrecisionSpec blocks = spec(PrecisionPolicy::fp8_block);
  EXPECT_EQ(device_precision(blocks, false, ComputeKind::sm_90).how, Becomes::native);
  EXPECT_EQ(device_precision(blocks, true, ComputeKind::sm_90).how, Becomes::native);
  EXPECT_EQ(device_precision(blocks, false, ComputeKind::cpu).how, Becomes::emulated);
  for (const ComputeKind kind : {ComputeKind::sm_80, ComputeKind::sm_89, ComputeKind::sm_100}) {
    EXPECT_EQ(device_precision(blocks, false, kind).how, Becomes::refused);
  }
}

// One scale for a whole operand is what every FP8 unit takes.
TEST(DevicePrecision, PerTensorFp8IsRealWhereverThereAreFp8Units) {
  const PrecisionSpec tensor = spec(PrecisionPolicy::fp8_tensor);
  for (const bool experts : {false, true}) {
    for (const ComputeKind kind : {ComputeKind::sm_89, ComputeKind::sm_90, ComputeKind::sm_100}) {
      EXPECT_EQ(device_precision(tensor, experts, kind).how, Becomes::native);
    }
    EXPECT_EQ(device_precision(tensor, experts, ComputeKind::sm_80).how, Becomes::refused);
  }
}

// What a recipe sets to BF16 is not the policy's.
TEST(DevicePrecision, AnFp8PolicyWithoutFp8ProductsIsBf16) {
  PrecisionSpec overridden = spec(PrecisionPolicy::fp8_block);
  overridden.forward = overridden.input_gradient = LinearFormat::bf16;
  EXPECT_EQ(device_precision(overridden, true, ComputeKind::sm_80).how, Becomes::refused);
  overridden.weight_gradient = LinearFormat::bf16;
  EXPECT_EQ(device_precision(overridden, true, ComputeKind::sm_80).how, Becomes::native);
}

TEST(DevicePrecision, ARefusalNamesPolicyPlaceReasonAndRemedy) {
  const auto refusal = [](const PrecisionSpec& precision, std::optional<ComputeKind> kind) {
    return precision_refusal(precision, false, kind, "cuda:0 (X)");
  };
  EXPECT_EQ(refusal(spec(PrecisionPolicy::bf16, true), ComputeKind::sm_80), "");
  EXPECT_EQ(refusal(spec(PrecisionPolicy::fp8_block), ComputeKind::cpu), "");
  const std::string refused = refusal(spec(PrecisionPolicy::fp8_block), ComputeKind::sm_89);
  for (const char* part : {"precision.policy = fp8_block", "cuda:0 (X)", "one scale", "precision.policy = bf16"}) {
    EXPECT_NE(refused.find(part), std::string::npos) << refused;
  }
  const std::string demanded = refusal(spec(PrecisionPolicy::fp8_block, true), ComputeKind::cpu);
  for (const char* part : {"precision.native = yes", "not their speed", "leave precision.native out"}) {
    EXPECT_NE(demanded.find(part), std::string::npos) << demanded;
  }
  EXPECT_NE(refusal(spec(PrecisionPolicy::bf16), std::nullopt).find("is not known"), std::string::npos);
}

TEST(DevicePrecision, APlanTellsAllKindsOnce) {
  const std::vector<std::string> lines = precision_lines(spec(PrecisionPolicy::fp8_block), false);
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[3], "fp8_block on sm_90: E4M3 products, scales of 1x128 and 128x128 (cuBLASLt)");
  EXPECT_EQ(lines[1].rfind("fp8_block on sm_80: refused, ", 0), 0u) << lines[1];
  const std::vector<std::string> plain = precision_lines(spec(PrecisionPolicy::bf16), true);
  ASSERT_EQ(plain.size(), 1u);
  EXPECT_EQ(plain[0], "bf16 on cpu, sm_80, sm_89, sm_90, sm_100: BF16 products, FP32 sums");
}

}  // namespace
}  // namespace shoestring
