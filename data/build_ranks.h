// The processes that build one corpus together.
//
// They see one file system: what is large goes from rank to rank through files in the folder of the build. Here they
// tell each other numbers, and wait for each other. Whoever fails must end the others too, who would wait for ever.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace shoestring {

class BuildRanks {
 public:
  virtual ~BuildRanks() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// What every rank gives, in rank order: [size() * values.size()]. All give as many. Nobody leaves before everybody
  /// has come, and what a rank wrote to files and closed before it came is seen by all who leave.
  virtual std::vector<std::int64_t> gather(std::span<const std::int64_t> values) = 0;

  void wait_for_all() { gather({}); }
  std::int64_t sum(std::int64_t value);
  /// The sum over the ranks before this one.
  std::int64_t sum_before(std::int64_t value);
  bool leads() const { return rank() == 0; }
};

/// One process alone.
class OneRank final : public BuildRanks {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::vector<std::int64_t> gather(std::span<const std::int64_t> values) override {
    return {values.begin(), values.end()};
  }
};

}  // namespace shoestring
