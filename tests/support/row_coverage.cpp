#include "tests/support/row_coverage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>
#include <set>
#include <string>

#include "kernels/base/check.h"
#include "kernels/variant_list.h"

namespace shoestring::testing {
namespace {

class Observer : public ::testing::Environment {
 public:
  void SetUp() override { observe_variants(record_row); }
};

[[maybe_unused]] const ::testing::Environment* const kObserver = ::testing::AddGlobalTestEnvironment(new Observer);

}  // namespace

void record_row(std::string_view op, std::string_view row) {
  static const char* const file = std::getenv("SHOESTRING_ROW_COVERAGE");
  if (file == nullptr) return;
  static std::mutex mutex;
  static std::set<std::string> known;
  const std::scoped_lock lock(mutex);
  const std::string line = std::string(op) + " " + std::string(row) + "\n";
  if (!known.insert(line).second) return;
  const int descriptor = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  check(descriptor >= 0, "SHOESTRING_ROW_COVERAGE: {} cannot be opened", file);
  const ssize_t written = write(descriptor, line.data(), line.size());
  close(descriptor);
  check(written == static_cast<ssize_t>(line.size()), "SHOESTRING_ROW_COVERAGE: {} cannot be written", file);
}

void record_row_at(const void* row, std::string_view name) {
  const std::string_view op = op_of_row(row);
  check(!op.empty(), "a row named {} stands in no table of op_variants()", name);
  record_row(op, name);
}

}  // namespace shoestring::testing
