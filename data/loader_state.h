// Internal to the loader: what it holds. loader.cpp makes it and answers for it, loader_rows.cpp fills batches.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/loader.h"
#include "data/token_source.h"

namespace shoestring {

/// One source: its bytes and where they go.
struct PlannedSource {
  TokenSource tokens;
  PackingPlan plan;
};

struct Loader::State {
  explicit State(LoaderOptions loader_options);

  LoaderOptions options;
  std::vector<PlannedSource> sources;
  std::unique_ptr<MixtureSchedule> mixture;
  ShardInfo first;        ///< of the first shard: what all have in common
  bool masked = false;    ///< some shard is, and what it marks is followed
  bool unmarked = false;  ///< some shard is, and all is learned
  std::string plan;
  std::atomic<bool> stops_waiting = false;
  std::atomic<int> fetching = 0;      ///< calls of fetch under way
  std::unique_ptr<ShardStage> stage;  ///< of shards in `sources`

  void open_sources();
  void begin_stage();
  void mix_sources();
  std::string describe() const;
  std::uint64_t first_share(int source) const;
  /// Finds the sample; reuses `origin`'s memory.
  void locate(MixtureDraw draw, SampleOrigin& origin) const;
  struct Row;
  void lay_out(const SampleOrigin& origin, const SampleOrigin* next, Row row, Batch& batch) const;
  void finish_row(const SampleOrigin& origin, Row& row, Batch& batch) const;
};

}  // namespace shoestring
