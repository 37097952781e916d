#include "tools/bench/loader_bench.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "data/loader.h"
#include "kernels/base/check.h"
#include "kernels/base/random.h"
#include "tools/bench/bench_folder.h"
#include "tools/bench/made_shard.h"

namespace shoestring {
namespace {

constexpr std::uint64_t kSample = 4097;

/// A whole file, mapped, and nothing else.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path) : bytes_(std::filesystem::file_size(path)) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    map_ = ::mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, fd, 0);
    if (fd >= 0) ::close(fd);
    if (map_ == MAP_FAILED) fail(ExitCode::io, "cannot map {}; look at `ulimit -v`", path);
  }
  ~MappedFile() { ::munmap(map_, bytes_); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const unsigned char* data() const { return static_cast<const unsigned char*>(map_); }

 private:
  std::uint64_t bytes_;
  void* map_;
};

double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Seconds of `rival` over seconds of `body`, taking turns, by processor time of this one thread: what other programs
/// do to a shared machine then matters less.
BenchRow over_rival(std::string name, std::string over, double goal, double work, Workers& workers,
                    const std::function<void()>& body, const std::function<void()>& rival, const BenchEffort& effort) {
  Ratios ratios;
  const auto seconds_of = [](const std::function<void()>& call) {
    const double begin = thread_seconds();
    call();
    return thread_seconds() - begin;
  };
  body();
  rival();
  const double start = now_seconds();
  for (int turn = 0; wants_more(ratios, start, effort); ++turn) {
    const PaceWatch watch(workers);
    double mine = turn % 2 == 0 ? seconds_of(body) : 0;  // neither side is always the one that warms the cache
    const double other = seconds_of(rival);
    if (turn % 2 != 0) mine = seconds_of(body);
    ratios.add(other / mine, work / mine, watch.pace());
  }
  return ratios.row(std::move(name), std::move(over), goal, "Mtoken/s");
}

constexpr int kReads = 5000;  // a call: random samples all over the file

BenchRow sample_fetch(const std::string& path, Workers& workers, const BenchEffort& effort) {
  const Shard shard = Shard::open(path);
  const MappedFile file(path);
  const auto* raw = reinterpret_cast<const std::int32_t*>(file.data() + shard.info().tokens_offset);
  std::vector<std::int32_t> out(kSample);
  const std::uint64_t room = shard.info().tokens - kSample;
  for (std::uint64_t at = 0; at < room; at += kSample) {  // every page mapped, every block verified
    shard.read(at, kSample, out.data());
    std::copy(raw + at, raw + at + kSample, out.begin());
  }
  const Random mine(2, Purpose::test);
  const Random other(3, Purpose::test);
  std::uint64_t index = 0;
  return over_rival(
      "sample fetch, 4097 tokens anywhere", "copy out of the mapped file", 0.95, kReads * kSample * 1e-6, workers,
      [&] {
        for (int i = 0; i < kReads; ++i) shard.read(mine.below(index++, room), kSample, out.data());
      },
      [&] {
        for (int i = 0; i < kReads; ++i) std::copy_n(raw + other.below(index++, room), kSample, out.begin());
      },
      effort);
}

BenchRow verification(const std::string& path, Workers& workers, const BenchEffort& effort) {
  std::vector<std::int32_t> out(kSample);
  const std::uint64_t tokens = Shard::open(path).info().tokens;
  const auto pass = [&](bool verify) {
    const Shard shard = Shard::open(path, {ShardIo::mmap, verify});
    for (std::uint64_t at = 0; at + kSample <= tokens; at += kSample) shard.read(at, kSample, out.data());
  };
  return over_rival(
      "open and read once, every block verified", "not verified", 0.75, static_cast<double>(tokens) * 1e-6, workers,
      [&] { pass(true); }, [&] { pass(false); }, effort);
}

// One epoch from opening the shards to the last sample, in batches of 8, by processor time of the one thread.
BenchRow whole_path(const std::string& text, const std::string& code, Workers& workers, const BenchEffort& effort) {
  LoaderOptions options;
  options.sources = {{"text", {text}, 0.7}, {"code", {code}, 0.3}};
  options.sequence = kSample - 1;
  options.fill_in_middle = FillInMiddle{0.1, 2, 3, 4};
  Ratios ratios;
  Batch batch;
  const double start = now_seconds();
  while (wants_more(ratios, start, effort)) {
    const PaceWatch watch(workers);
    const double begin = thread_seconds();
    const Loader loader(options);
    const std::int64_t samples = loader.counts(0).samples / 7 * 10 / 8 * 8;
    for (std::int64_t first = 0; first < samples; first += 8) loader.fetch({first, 8}, batch);
    const double tokens = static_cast<double>(samples * options.sequence);
    const double nanoseconds = (thread_seconds() - begin) / tokens * 1e9;
    ratios.add(2.0 / nanoseconds, nanoseconds, watch.pace());
  }
  return ratios.row("whole path, two sources, sequence 4096", "2 ns per token and core", 1.0, "ns/token");
}

}  // namespace

void bench_loader(Workers& workers, const BenchEffort& effort, const BenchReport& report) {
  const BenchFolder folder;
  write_made_shard(folder / "text.h5", 16'000'000, 1);
  write_made_shard(folder / "code.h5", 7'000'000, 2);
  report(sample_fetch(folder / "text.h5", workers, effort));
  report(verification(folder / "text.h5", workers, effort));
  report(whole_path(folder / "text.h5", folder / "code.h5", workers, effort));
}

}  // namespace shoestring
