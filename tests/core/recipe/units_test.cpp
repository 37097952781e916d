#include "core/recipe/units.h"

#include <gtest/gtest.h>

#include <cmath>

namespace shoestring {
namespace {

TEST(Units, CountsUseOneRule) {
  EXPECT_EQ(parse_quantity("14.8T", Unit::count).value, 14.8e12);
  EXPECT_EQ(parse_whole("14.8T", Unit::count).value, 14800000000000);
  EXPECT_EQ(parse_whole("4K", Unit::count).value, 4000);
  EXPECT_EQ(parse_whole("4Ki", Unit::count).value, 4096);
  EXPECT_EQ(parse_whole("2 M", Unit::count).value, 2000000);
  EXPECT_EQ(parse_whole("62.9B", Unit::count).value, 62900000000);
  EXPECT_EQ(parse_whole("1e3", Unit::count).value, 1000);
}

TEST(Units, PositionsRefuseAnAmbiguousK) {
  EXPECT_EQ(parse_whole("4Ki", Unit::positions).value, 4096);
  EXPECT_EQ(parse_whole("4000", Unit::positions).value, 4000);
  EXPECT_EQ(parse_whole("4K", Unit::positions).mistake, "may mean 1000 or 1024: write 4Ki (4096) or 4000");
}

TEST(Units, ADecimalCommaIsNamed) {
  EXPECT_EQ(parse_quantity("0,05", Unit::hours).mistake, "has a decimal comma: write 0.05");
  EXPECT_EQ(parse_quantity("2,5h", Unit::hours).mistake, "has a decimal comma: write 2.5h");
  EXPECT_EQ(parse_quantity("0,125", Unit::hours).mistake, "has a decimal comma: write 0.125");
  EXPECT_EQ(parse_whole("2,5M", Unit::count).mistake, "has a decimal comma: write 2.5M");
  EXPECT_EQ(parse_quantity("1, 2", Unit::none).mistake, "is a number followed by text; this key has no unit");
}

// What is proposed in its place is the number that was meant: 2.000 would be two tokens.
TEST(Units, ACommaOfThousandsIsNamed) {
  EXPECT_EQ(parse_whole("2,000", Unit::count).mistake, "holds a comma: write 2000");
  EXPECT_EQ(parse_whole("1,000,000", Unit::count).mistake, "holds a comma: write 1000000");
  EXPECT_EQ(parse_whole("2,000K", Unit::count).mistake, "holds a comma: write 2000K");
  EXPECT_EQ(parse_quantity("2,000", Unit::usd).mistake, "holds a comma: write 2000, or 2.000 if a fraction is meant");
  EXPECT_EQ(parse_quantity("-2,000 h", Unit::hours).mistake,
            "holds a comma: write -2000 h, or -2.000 h if a fraction is meant");
  EXPECT_EQ(parse_quantity("1,234.5", Unit::hours).mistake, "holds a comma: write 1234.5");
  const std::string neither = "holds a comma: write digits without one";
  for (const char* text : {"2,50", "1,00,000", "0,000", "1234,567", "1.000,5", "1,000,"}) {
    EXPECT_EQ(parse_whole(text, Unit::count).mistake, neither) << text;
  }
  EXPECT_EQ(parse_quantity("1.000,5", Unit::count).mistake, neither + ", and a point before a fraction");
}

TEST(Units, TimesAreExact) {
  EXPECT_EQ(parse_quantity("2.5h", Unit::hours).value, 2.5);
  EXPECT_EQ(parse_quantity("30min", Unit::hours).value, 0.5);
  EXPECT_EQ(parse_quantity("180s", Unit::hours).value, 0.05);
  EXPECT_EQ(parse_quantity("2d", Unit::hours).value, 48);
  EXPECT_EQ(parse_quantity("2.788M", Unit::hours).value, 2.788e6);
  EXPECT_EQ(parse_quantity("90s", Unit::minutes).value, 1.5);
  EXPECT_EQ(parse_quantity("1h", Unit::minutes).value, 60);
  EXPECT_DOUBLE_EQ(parse_quantity("5us", Unit::seconds).value, 5e-6);
}

TEST(Units, BytesSharesMoneyAndPower) {
  EXPECT_EQ(parse_quantity("64MiB", Unit::bytes).value, 64.0 * 1024 * 1024);
  EXPECT_EQ(parse_quantity("3.35TB", Unit::bytes).value, 3.35e12);
  EXPECT_EQ(parse_quantity("5%", Unit::fraction).value, 0.05);
  EXPECT_EQ(parse_quantity("$2", Unit::usd).value, 2);
  EXPECT_EQ(parse_quantity("1.2kW", Unit::watts).value, 1200);
  EXPECT_EQ(parse_quantity("989T", Unit::rate).value, 989e12);
}

TEST(Units, RefusesWhatIsNoNumber) {
  for (const char* text : {"", "x", "--1", "nan", "inf", "1e999", "1.2.3", "0x10", "4Q", "1,000"}) {
    EXPECT_FALSE(parse_quantity(text, Unit::count).mistake.empty()) << text;
  }
  EXPECT_TRUE(parse_quantity("5", Unit::none).mistake.empty());
  EXPECT_FALSE(parse_quantity("5h", Unit::none).mistake.empty());
  EXPECT_EQ(parse_whole("2.5", Unit::count).mistake, "must be a whole number");
  for (const char* large : {"9007199254740993T", "9007199254740993", "9007199254740992", "-9007199254740992"}) {
    EXPECT_EQ(parse_whole(large, Unit::count).mistake, "is too large for a whole number: 9007199254740991 is the most")
        << large << " would be read as another number, or stand for two";
  }
  EXPECT_EQ(parse_whole("9007199254740991", Unit::count).value, 9007199254740991);
}

TEST(Units, WhatIsPrintedParsesBack) {
  for (const double value : {0.0, 1.0, 4096.0, 14.8e12, 2.788e6, 1e-8, 0.1, 1.0 / 3, 123456789.0, 62.9e9, 3e-4}) {
    for (const Unit unit : {Unit::none, Unit::count, Unit::hours, Unit::bytes, Unit::fraction, Unit::rate}) {
      EXPECT_EQ(parse_quantity(print_quantity(value, unit), unit).value, value) << print_quantity(value, unit);
    }
  }
  EXPECT_EQ(print_quantity(14.8e12, Unit::count), "14.8T");
  EXPECT_EQ(rounded(2788000), "2.788M");
  EXPECT_EQ(rounded(INFINITY), "unlimited");
  EXPECT_EQ(rounded(17229.6), "17230");
  EXPECT_EQ(rounded(8616.9), "8617");
  EXPECT_EQ(rounded(0.049717), "0.04972");
}

}  // namespace
}  // namespace shoestring
