#include "core/budget/hardware.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

const std::filesystem::path kRecipes = std::filesystem::path(SHOESTRING_SOURCE_DIR) / "recipes";

TEST(Hardware, TheFilesWeShipAreSound) {
  const std::vector<std::string> names = hardware_names(kRecipes);
  for (const char* expected : {"a100_40", "a100_80", "b200", "cpu", "gb200", "h100", "h100_pcie", "h20", "h200", "h800",
                               "l40s", "mi300x", "rtx4090"}) {
    EXPECT_NE(std::find(names.begin(), names.end(), expected), names.end()) << expected;
  }
  for (const std::string& name : names) {
    const Hardware hardware = read_hardware(find_hardware(name, kRecipes));
    EXPECT_EQ(hardware.name, name);
    EXPECT_GT(hardware.peak_flops[RateFormat::bf16], 0);
    EXPECT_FALSE(hardware.source.empty());
    EXPECT_GT(hardware.memory_bytes_per_second, 0) << name;
    if (name != "cpu") {
      EXPECT_GT(hardware.devices_per_node, 1) << name;
      EXPECT_GT(hardware.watts, 0) << name;
      EXPECT_GT(hardware.network_bytes_per_second, 0) << name;
    }
  }
  const Hardware h800 = read_hardware(find_hardware("h800", kRecipes));
  EXPECT_EQ(h800.peak_flops[RateFormat::fp8], 1979e12);
  EXPECT_EQ(h800.peer_bytes_per_second, 200e9);
  EXPECT_EQ(h800.usd_low, 2);
}

TEST(Hardware, WhatIsWrittenIsReadBack) {
  testing::TemporaryFolder folder;
  for (const std::string& name : hardware_names(kRecipes)) {
    const Hardware first = read_hardware(find_hardware(name, kRecipes));
    testing::write_text(folder / (name + ".hardware"), hardware_text(first));
    const Hardware again = read_hardware(folder / (name + ".hardware"));
    EXPECT_EQ(again.description, first.description);
    EXPECT_EQ(again.source, first.source);
    EXPECT_EQ(again.extent_source, first.extent_source);
    EXPECT_EQ(again.price_date, first.price_date);
    constexpr double kThreeDigits = 5e-3;
    const auto same = [&](double value, double expected) {
      EXPECT_NEAR(value, expected, kThreeDigits * expected) << name;
    };
    for (const RateFormat format : {RateFormat::fp32, RateFormat::bf16, RateFormat::fp8}) {
      same(again.peak_flops[format], first.peak_flops[format]);
      same(again.achievable_flops[format], first.achievable_flops[format]);
      same(again.half_extent[format], first.half_extent[format]);
    }
    same(again.memory_bytes, first.memory_bytes);
    same(again.memory_bytes_per_second, first.memory_bytes_per_second);
    same(again.peer_latency_seconds, first.peer_latency_seconds);
    same(again.network_bytes_per_second, first.network_bytes_per_second);
    same(again.devices_per_node, first.devices_per_node);
    same(again.watts, first.watts);
    same(again.usd_high, first.usd_high);
  }
}

TEST(Hardware, EveryMistakeIsListed) {
  testing::TemporaryFolder folder;
  testing::write_text(folder / "x.hardware",
                      "[flops]\nbf16_peek = 1T\nbf16_peak = much\nfp8_peak = -1\nfp8_peak = 2\n[device\ninclude = a\n");
  try {
    read_hardware(folder / "x.hardware");
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(error.code(), ExitCode::bad_recipe);
    for (const char* expected :
         {"x.hardware:2: unknown key 'flops.bf16_peek'; did you mean 'flops.bf16_peak'?",
          "x.hardware:3: flops.bf16_peak = 'much' is not a number", ":4: ", ":5: ", ":6: ", ":7: "}) {
      EXPECT_NE(text.find(expected), std::string::npos) << expected << "\nnot in\n" << text;
    }
  }
}

TEST(Hardware, FiguresNeedSources) {
  testing::TemporaryFolder folder;
  testing::write_text(
      folder / "x.hardware",
      "[flops]\nbf16_peak = 1T\nbf16_achievable = 2T\nbf16_half_extent = 64\nfp8_half_extent = 64\n[link]\n"
      "devices_per_node = 1.5\n[price]\nusd_high = 3\n");
  try {
    read_hardware(folder / "x.hardware");
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    for (const char* expected : {"device.source", "device.date", "achievable_source", "above its peak", "extent_source",
                                 "fp8_half_extent bends flops.fp8_achievable, which is missing",
                                 "devices_per_node must be whole", "price.source", "price.date"}) {
      EXPECT_NE(text.find(expected), std::string::npos) << expected << "\nnot in\n" << text;
    }
  }
}

TEST(Hardware, AnUnknownNameNamesTheNearest) {
  try {
    find_hardware("mi30x", kRecipes);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(std::string(error.what()).find("did you mean 'mi300x'?"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace shoestring
