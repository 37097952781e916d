#include "kernels/variant_list.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>

namespace shoestring {
namespace {

TEST(VariantList, HoldsEveryTableThatAHeaderDeclares) {
  const std::regex declared(R"(^std::span<const Variant<.*>> (\w+)_variants\(\);)");
  std::size_t count = 0;
  for (const auto& file : std::filesystem::directory_iterator(SHOESTRING_SOURCE_DIR "/kernels")) {
    if (file.path().extension() != ".h") continue;
    std::ifstream lines(file.path());
    for (std::string line; std::getline(lines, line);) {
      std::smatch found;
      if (!std::regex_search(line, found, declared)) continue;
      ++count;
      EXPECT_TRUE(std::any_of(op_variants().begin(), op_variants().end(),
                              [&](const OpVariants& known) { return known.op == found[1].str(); }))
          << file.path() << " declares the table of " << found[1];
    }
  }
  EXPECT_EQ(count, op_variants().size());
}

TEST(VariantList, EveryOpHasItsRows) {
  for (const OpVariants& op : op_variants()) EXPECT_FALSE(op.variants.empty()) << op.op;
}

}  // namespace
}  // namespace shoestring
