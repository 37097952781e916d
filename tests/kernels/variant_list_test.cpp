#include "kernels/variant_list.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include "kernels/base/check.h"
#include "kernels/reduce.h"
#include "kernels/rope.h"

namespace shoestring {
namespace {

// The op in "std::span<const Variant<OpArgs>> op_variants();"; empty for any other line.
std::string declared_in(const std::string& line) {
  const std::string end = "_variants();";
  if (!line.starts_with("std::span<const Variant<") || !line.ends_with(end)) return {};
  const std::size_t begin = line.rfind(' ') + 1;
  return line.substr(begin, line.size() - end.size() - begin);
}

TEST(VariantList, HoldsEveryTableThatAHeaderDeclares) {
  std::size_t count = 0;
  for (const auto& file : std::filesystem::directory_iterator(SHOESTRING_SOURCE_DIR "/kernels")) {
    if (file.path().extension() != ".h") continue;
    std::ifstream lines(file.path());
    for (std::string line; std::getline(lines, line);) {
      const std::string op = declared_in(line);
      if (op.empty()) continue;
      ++count;
      EXPECT_TRUE(std::any_of(op_variants().begin(), op_variants().end(),
                              [&](const OpVariants& known) { return known.op == op; }))
          << file.path() << " declares the table of " << op;
    }
  }
  EXPECT_EQ(count, op_variants().size());
}

TEST(VariantList, EveryOpHasItsRows) {
  for (const OpVariants& op : op_variants()) EXPECT_FALSE(op.variants.empty()) << op.op;
}

// Where a machine lacks nothing for a row, it is not the arguments that decide: the reference of each op runs anywhere.
TEST(VariantList, KnowsWhatEveryRowNeeds) {
  for (const OpVariants& op : op_variants()) {
    for (const std::string_view variant : op.variants) EXPECT_NO_THROW(machine_lacks(variant)) << op.op << variant;
    EXPECT_EQ(machine_lacks(op.variants.back()), "") << op.op;
  }
  EXPECT_THROW(machine_lacks("praised"), Error);
}

TEST(VariantList, FindsTheOpOfARow) {
  EXPECT_EQ(op_of_row(&rope_variants().front()), "rope");
  EXPECT_EQ(op_of_row(&rope_variants().back()), "rope");
  EXPECT_EQ(op_of_row(&reduce_variants().back()), "reduce");
  EXPECT_EQ(op_of_row(nullptr), "");
}

}  // namespace
}  // namespace shoestring
