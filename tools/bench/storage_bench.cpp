#include "tools/bench/storage_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <mutex>
#include <thread>

#include "data/prefetching_loader.h"
#include "tools/bench/bench_folder.h"
#include "tools/bench/made_shard.h"

namespace shoestring {
namespace {

constexpr double kOpenSeconds = 0.01;
constexpr double kBytesPerSecond = 50e6;
constexpr int kShards = 8;
constexpr std::uint64_t kShardTokens = 3'000'000;  // 12 MB
constexpr std::int64_t kSequence = 1024;
constexpr std::int64_t kSamples = 8;  // of a batch
constexpr int kPrefetch = 4;          // a recipe's data.prefetch

/// As slow as it says, whatever it stands on: all readers share one rate, first come, first served.
class SlowStorage final : public ShardStorage {
 public:
  int open(const std::string& path) const override {
    pause(kOpenSeconds);
    return ShardStorage::open(path);
  }
  std::int64_t read(int file, std::int64_t offset, void* to, std::int64_t bytes) const override {
    const double until = [&] {
      const std::scoped_lock lock(mutex_);
      free_at_ = std::max(free_at_, seconds()) + static_cast<double>(bytes) / kBytesPerSecond;
      return free_at_;
    }();
    const std::int64_t got = ShardStorage::read(file, offset, to, bytes);
    pause(std::max(0.0, until - seconds()));
    return got;
  }
  void will_need(int, std::int64_t, std::int64_t) const override {}
  bool remote(int) const override { return true; }

 private:
  mutable std::mutex mutex_;
  mutable double free_at_ = 0;  // seconds
};

LoaderOptions options_of(const BenchFolder& folder, const ShardStorage& storage, const std::string& stage) {
  LoaderOptions options;
  options.sources = {{"text", {(folder / "shards").string()}, 1}};
  options.sequence = kSequence;
  options.storage = &storage;
  if (!stage.empty()) options.stage = StageOptions{.folder = folder / stage};
  return options;
}

struct Waited {
  DataReading reading;
  double seconds = 0;  ///< of the whole run
  double share() const { return reading.wait_seconds / seconds; }
};

/// A run of `steps` steps that do nothing but take their time.
Waited run(const Loader& loader, std::int64_t steps, double step_seconds) {
  PrefetchingLoader batches(
      loader,
      [steps, next = std::int64_t{0}]() mutable {
        return next < steps ? std::optional(SampleRange{kSamples * next++, kSamples}) : std::nullopt;
      },
      kPrefetch);
  const double begin = now_seconds();
  while (batches.next() != nullptr) std::this_thread::sleep_for(std::chrono::duration<double>(step_seconds));
  return {batches.reading(), now_seconds() - begin};
}

BenchRow row(const std::string& name, const Waited& waited, double goal) {
  return {.name = name,
          .over = "of the run's wall-clock",
          .median = waited.share(),
          .p10 = waited.share(),
          .p90 = waited.share(),
          .goal = goal,
          .absolute = waited.reading.wait_seconds,
          .absolute_unit = "s waited",
          .kept = 1,
          .at_most = true};
}

std::string late(const Waited& waited) {
  if (waited.reading.late.empty()) return "no shard was late";
  const LateShard& worst = waited.reading.late.front();
  return fmt::format("most for {}, {:.2f} s", std::filesystem::path(worst.path).filename().string(), worst.seconds);
}

}  // namespace

void bench_storage(Workers&, const BenchEffort&, const BenchReport& report) {
  const BenchFolder folder;
  std::filesystem::create_directory(folder / "shards");
  for (int shard = 0; shard < kShards; ++shard) {
    write_made_shard(folder / fmt::format("shards/{}.h5", shard), kShardTokens, static_cast<std::uint64_t>(shard));
  }
  const SlowStorage storage;
  {
    const Loader staged(options_of(folder, storage, "stage"));
    const Waited waited = run(staged, 200, 0.05);
    const StageCounts counts = *staged.staged();
    report(row(fmt::format("data wait, staged meanwhile ({} of {}), steps of 50 ms", counts.staged, counts.shards),
               waited, 0.02));
  }
  {
    const Loader staged(options_of(folder, storage, "stage"));
    while (!staged.staged()->settled()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    report(row("data wait, copies stand, steps of 5 ms", run(staged, 400, 0.005), 0.02));
  }
  const Waited waited = run(Loader(options_of(folder, storage, "")), 400, 0.005);
  report(row("data wait, not staged, steps of 5 ms: " + late(waited), waited, 0));
}

}  // namespace shoestring
