#include "kernels/base/cuda_facts.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/base/device.h"

namespace shoestring {
namespace {

CudaFacts hopper() {
  return {.architectures = "90a",
          .runtime_version = 13010,
          .driver_version = 13000,
          .trouble = "",
          .devices = {{"NVIDIA H100 80GB HBM3", 90, std::int64_t{80} << 30}}};
}

// One fault of each kind in facts that are sound otherwise: told apart by state and by text, each with what to do.
TEST(CudaFacts, EveryFaultHasItsOwnText) {
  EXPECT_EQ(judge_cuda(hopper(), 0).state, CudaState::usable);
  EXPECT_EQ(judge_cuda(hopper(), 0).text, "");
  struct Case {
    CudaState state;
    void (*spoil)(CudaFacts&);
    std::vector<const char*> says;
  };
  const Case cases[] = {
      {CudaState::not_built, [](CudaFacts& f) { f.architectures.clear(); }, {"without CUDA", "SHOESTRING_CUDA=ON"}},
      {CudaState::no_driver,
       [](CudaFacts& f) {
         f.driver_version = 0;
         f.trouble = "CUDA driver version is insufficient for CUDA runtime version";  // as CUDA calls it
         f.devices.clear();
       },
       {"no NVIDIA driver", "driver 580 or newer"}},
      {CudaState::driver_too_old,
       [](CudaFacts& f) {
         f.driver_version = 12040;
         f.trouble = "CUDA driver version is insufficient for CUDA runtime version";
         f.devices.clear();
       },
       {"up to 12.4", "needs 13.1", "driver 580 or newer"}},
      {CudaState::broken,
       [](CudaFacts& f) {
         f.trouble = "system not yet initialized";
         f.devices.clear();
       },
       {"system not yet initialized", "nvidia-smi"}},
      {CudaState::no_device, [](CudaFacts& f) { f.devices.clear(); }, {"no device", "CUDA_VISIBLE_DEVICES"}},
      {CudaState::no_code,
       [](CudaFacts& f) {
         f.devices[0] = {"NVIDIA A100-SXM4-80GB", 80, 1};
       },
       {"NVIDIA A100-SXM4-80GB", "8.0", "has code for 90a", "-DSHOESTRING_CUDA_ARCHITECTURES=80"}},
  };
  std::set<std::string> texts;
  for (const Case& one : cases) {
    CudaFacts facts = hopper();
    one.spoil(facts);
    const CudaJudgement judgement = judge_cuda(facts, 0);
    EXPECT_EQ(judgement.state, one.state) << judgement.text;
    for (const char* part : one.says) EXPECT_NE(judgement.text.find(part), std::string::npos) << judgement.text;
    texts.insert(judgement.text);
  }
  EXPECT_EQ(texts.size(), std::size(cases));
  const CudaJudgement second = judge_cuda(hopper(), 1);
  EXPECT_EQ(second.state, CudaState::no_such_device);
  EXPECT_NE(second.text.find("sees 1 device;"), std::string::npos) << second.text;
}

// Every driver serves the runtimes of its own major version, and those before it.
TEST(CudaFacts, ADriverServesItsMajorVersionAndEarlierOnes) {
  CudaFacts facts = hopper();
  for (const int driver : {13000, 13010, 13020, 14000}) {
    facts.driver_version = driver;
    EXPECT_EQ(judge_cuda(facts, 0).state, CudaState::usable) << driver;
  }
  facts.driver_version = 12090;
  EXPECT_EQ(judge_cuda(facts, 0).state, CudaState::driver_too_old);
  facts.runtime_version = 12080;
  EXPECT_EQ(judge_cuda(facts, 0).state, CudaState::usable);
}

TEST(CudaFacts, CodeRunsOnItsArchitectureOrLaterOnesOfItsKind) {
  EXPECT_TRUE(has_code_for("90a", 90));
  EXPECT_FALSE(has_code_for("90a", 100));
  EXPECT_FALSE(has_code_for("90a", 80));
  EXPECT_TRUE(has_code_for("80;89;90a", 86));  // by that for 8.0
  EXPECT_TRUE(has_code_for("80-real,90a-real", 80));
  EXPECT_FALSE(has_code_for("89", 80));
  EXPECT_FALSE(has_code_for("80;89", 90));
  EXPECT_TRUE(has_code_for("100f", 103));
  EXPECT_FALSE(has_code_for("", 90));
}

TEST(CudaFacts, OfThisMachineAreGatheredWithoutAnError) {
  const CudaFacts facts = cuda_facts();
  EXPECT_EQ(facts.architectures, built_architectures());
  EXPECT_EQ(static_cast<int>(facts.devices.size()), cuda_device_count());
  EXPECT_EQ(judge_cuda(facts, 0).text.empty(), judge_cuda(facts, 0).state == CudaState::usable);
}

}  // namespace
}  // namespace shoestring
