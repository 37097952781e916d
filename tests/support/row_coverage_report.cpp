// row_coverage_report FILE [--partial]: what the tests that wrote FILE (row_coverage.h) ran on this machine. Prints the
// rows that it could not run; with a row that it could have run and no test did, that too, and then ends with 1 unless
// only a part of the tests ran.
#include <fmt/core.h>

#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include "kernels/base/cpu.h"
#include "kernels/variant_list.h"

namespace {

using Table = std::map<std::string, std::set<std::string>>;  // what is lacking, or the row's name -> ops

void print(const char* title, const Table& table) {
  if (table.empty()) return;
  fmt::print("{}\n", title);
  for (const auto& [key, ops] : table) {
    std::string line = fmt::format("  {}:", key);
    for (const std::string& op : ops) {
      if (line.size() + op.size() > 118) {
        fmt::print("{}\n", line);
        line = "   ";
      }
      line += " " + op;
    }
    fmt::print("{}\n", line);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: row_coverage_report FILE [--partial]\n");
    return 64;
  }
  std::set<std::string> ran;
  std::ifstream lines(argv[1]);
  for (std::string line; std::getline(lines, line);) ran.insert(line);
  Table impossible;
  Table skipped;
  std::size_t rows = 0;
  std::size_t covered = 0;
  for (const shoestring::OpVariants& op : shoestring::op_variants()) {
    for (const std::string_view variant : op.variants) {
      ++rows;
      const std::string row(variant);
      const std::string lacking(shoestring::machine_lacks(variant));
      if (ran.contains(std::string(op.op) + " " + row)) {
        ++covered;
      } else if (!lacking.empty()) {
        impossible[row + ", which needs " + lacking].emplace(op.op);
      } else {
        skipped[row].emplace(op.op);
      }
    }
  }
  fmt::print("{} of {} rows ran on this processor ({})\n", covered, rows, shoestring::cpu_features().to_string());
  print("rows that it could not run, and so nobody tested here:", impossible);
  print("rows that it could have run, and no test did:", skipped);
  const bool partial = argc > 2 && std::strcmp(argv[2], "--partial") == 0;
  return skipped.empty() || partial ? 0 : 1;
}
