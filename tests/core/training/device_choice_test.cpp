#include "core/training/device_choice.h"

#include <gtest/gtest.h>

#include "core/recipe/parse.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

Recipe recipe(const std::vector<std::string>& overrides = {}) {
  return parse_recipe_text(
             "[run]\nname = r\n[budget]\ngpu_hours = 1\n[model]\narchitecture = llama\nlayers = 4\n"
             "hidden = 32\nheads = 1\nfeed_forward = 32\n[data]\ntrain = shards/train\n[schedule]\n"
             "learning_rate = 1e-3\n[phase.p]\nsequence = 16\nglobal_batch = 8\n",
             "r.recipe", overrides)
      .recipe;
}

CudaFacts facts(int capability = 90) {
  return {.architectures = "80;89;90a;100a",
          .runtime_version = 13010,
          .driver_version = 13010,
          .trouble = "",
          .devices = {{"NVIDIA X", capability, std::int64_t{80} << 30}}};
}

CudaFacts without_driver() {
  CudaFacts none = facts();
  none.driver_version = 0;
  none.devices.clear();
  return none;
}

void expect_refused(ExitCode code, const Recipe& asked, const CudaFacts& there, const std::vector<const char*>& says,
                    int ranks = 1) {
  try {
    choose_device(asked, ranks, there);
    ADD_FAILURE() << "not refused: " << says.front();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const char* part : says) EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

void expect_line(const std::string& text, const char* part) { EXPECT_NE(text.find(part), std::string::npos) << text; }

TEST(DeviceChoice, AutomaticTakesADeviceWhereOneIs) {
  const DeviceChoice taken = choose_device(recipe(), 1, facts());
  EXPECT_EQ(taken.device, (Device{DeviceKind::cuda, 0}));
  EXPECT_EQ(taken.text, "device: cuda:0 (NVIDIA X, compute capability 9.0); bf16: BF16 products, FP32 sums");
  EXPECT_EQ(choose_device(recipe({"--budget.hardware=cpu"}), 1, facts()).device, Device{});
  EXPECT_EQ(choose_device(recipe({"--run.device=cpu"}), 1, facts()).device, Device{});
  EXPECT_EQ(choose_device(recipe({"--run.device=cuda", "--budget.hardware=cpu"}), 1, facts()).device.kind,
            DeviceKind::cuda);
  EXPECT_EQ(choose_device(recipe(), 4, without_driver()).device, Device{});
}

TEST(DeviceChoice, HardwareOfAnotherKindIsSaid) {
  const std::string named = choose_device(recipe({"--budget.hardware=h100"}), 1, without_driver()).text;
  for (const char* part :
       {"device: the processor", "budget.hardware = h100", "no NVIDIA driver", "run.device = cuda would refuse"})
    expect_line(named, part);
  const std::string several = choose_device(recipe(), 2, facts()).text;
  expect_line(several, "of 2 ranks gradients are not exchanged between CUDA devices yet");
  EXPECT_EQ(several.find("budget.hardware"), std::string::npos) << several;
  EXPECT_EQ(choose_device(recipe(), 1, without_driver()).text, "device: the processor; bf16: BF16 products, FP32 sums");
  EXPECT_EQ(choose_device(recipe({"--budget.hardware=h100", "--run.device=cpu"}), 1, facts()).text.find("h100"),
            std::string::npos);
}

// Whoever asks for a device hears why there is none, and whoever has one that does not serve is not given the
// processor.
TEST(DeviceChoice, ADeviceThatDoesNotServeIsAnError) {
  expect_refused(ExitCode::missing_input, recipe({"--run.device=cuda"}), without_driver(),
                 {"run.device = cuda: there is no NVIDIA driver", "run.device = cpu trains on the processor"});
  CudaFacts old = facts();
  old.driver_version = 12040;
  expect_refused(ExitCode::missing_input, recipe(), old, {"run.device = automatic", "up to 12.4", "run.device = cpu"});
  expect_refused(ExitCode::missing_input, recipe(), facts(75), {"7.5", "has code for 80;89;90a;100a"});
}

TEST(DeviceChoice, APolicyThatADeviceCannotHaveIsRefused) {
  const Recipe blocks = recipe({"--precision.policy=fp8_block"});
  EXPECT_EQ(choose_device(blocks, 1, facts(90)).device.kind, DeviceKind::cuda);
  for (const int capability : {80, 89, 100}) {
    expect_refused(ExitCode::bad_recipe, blocks, facts(capability),
                   {"precision.policy = fp8_block", "cuda:0 (NVIDIA X", "precision.policy = bf16"});
  }
  expect_refused(ExitCode::bad_recipe, recipe({"--precision.policy=fp8_block", "--precision.native=yes"}),
                 without_driver(), {"precision.native = yes", "the processor", "not their speed"});
}

TEST(DeviceChoice, WhatADeviceHasNoPartForIsRefused) {
  expect_refused(ExitCode::bad_recipe, recipe({"--run.device=cuda"}), facts(), {"of 2 ranks", "run.device = cpu"}, 2);
  expect_refused(ExitCode::bad_recipe, recipe({"--evaluation.suites=questions"}), facts(),
                 {"evaluation.suites", "shoestring evaluate"});
}

}  // namespace
}  // namespace shoestring
