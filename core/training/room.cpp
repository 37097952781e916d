#include "core/training/room.h"

#include <fmt/core.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <array>

#include "core/training/rank_texts.h"
#include "data/shard_report.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::int64_t kBesideCheckpoints = std::int64_t{16} << 20;  // ledger, metrics, report, tokenizer
constexpr std::int64_t kFilesBeside = 32;                            // the same, and what they replace
constexpr std::int64_t kHeader = std::int64_t{64} << 10;             // names and places of a file's tensors
constexpr std::int64_t kBesideModel = std::int64_t{64} << 20;        // the program, tokenizer, batches
constexpr std::int64_t kBesideDevice = std::int64_t{256} << 20;      // code of kernels, cuBLASLt, batches
constexpr std::int64_t kVisiting = std::int64_t{64} << 20;           // pieces of state that pass through a device
constexpr std::int64_t kBesideShards = 64;                           // files of checkpoints, the ledger, MPI

double mebibytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }
double gibibytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

/// "weights 1.2, gradients 1.2, ...", in GiB; `moments` where the rank in question has them.
std::string parts_text(const MemoryPlan& plan, std::int64_t moments) {
  return fmt::format(
      "weights {:.3g}, gradients {:.3g}, moments {:.3g}, compute copies {:.3g}, activations {:.3g}, messages {:.3g}, "
      "scratch and tables {:.3g}",
      gibibytes(plan.model.parameters), gibibytes(plan.model.gradients), gibibytes(moments),
      gibibytes(plan.model.prepared), gibibytes(plan.model.saved), gibibytes(plan.communication),
      gibibytes(plan.model.scratch + plan.model.tables + plan.optimizer_scratch + plan.merged + plan.suites));
}

}  // namespace

void check_inputs(const DataSpec& data) {
  for (const std::vector<SourceSpec>* sources : {&data.train, &data.validation}) {
    for (const SourceSpec& source : *sources) list_shards(source.path);
  }
}

void check_inputs(const Recipe& recipe) {
  check_inputs(recipe.data);
  check_phase_inputs(recipe, 0);
}

void check_phase_inputs(const Recipe& recipe, int first) {
  for (std::size_t phase = static_cast<std::size_t>(first); phase < recipe.phases.size(); ++phase) {
    DataSpec own;
    own.train = recipe.phases[phase].train;
    own.validation = recipe.phases[phase].validation;
    check_inputs(own);
  }
}

void check_memory(const MemoryLeft& left, const MemoryPlan& plan) {
  const std::int64_t needed = plan.total() + kBesideModel;
  if (needed <= left.bytes) return;
  fail(ExitCode::io,
       "memory: this rank needs {:.3g} GiB and can have {:.3g} ({}): {}. Smaller phase.NAME.micro_batch or "
       "phase.NAME.sequence: less of activations and scratch; parallel.pipeline: a part of the model on each rank; "
       "precision.moments = bf16: half the moments; lora.rank: neither gradients nor moments of the weights",
       gibibytes(needed), gibibytes(left.bytes), left.from, parts_text(plan, plan.moments));
}

std::int64_t DeviceNeed::bytes() const {
  const bool visits = state == StateMemory::host;
  return plan.total() - (visits ? plan.moments - std::min(plan.moments, kVisiting) : 0) + kBesideDevice;
}

void check_device_memory(const MemoryLeft& left, const DeviceNeed& need,
                         const std::function<std::vector<MemoryChange>()>& changes) {
  if (need.bytes() <= left.bytes) return;
  std::string remedy =
      "No change of micro_batch, precision.moments and optimizer.state would do: take a smaller model or "
      "phase.NAME.sequence, lora.rank (neither gradients nor moments of the weights), or a device with more memory";
  for (const MemoryChange& change : changes()) {
    if (change.need.bytes() > left.bytes) continue;
    remedy = fmt::format("{} would need {:.3g} GiB, and fit", change.keys, gibibytes(change.need.bytes()));
    break;
  }
  fail(ExitCode::io, "memory: the run needs {:.3g} GiB of {} and can have {:.3g} ({}): {}. {}", gibibytes(need.bytes()),
       to_string(need.device), gibibytes(left.bytes), left.from,
       parts_text(need.plan, need.state == StateMemory::host ? 0 : need.plan.moments), remedy);
}

void check_open_files(const DataSpec& data) {
  std::int64_t shards = 0;
  for (const std::vector<SourceSpec>* sources : {&data.train, &data.validation}) {
    for (const SourceSpec& source : *sources) shards += static_cast<std::int64_t>(list_shards(source.path).size());
  }
  const std::int64_t needed = shards + kBesideShards;
  const std::int64_t allowed = raise_open_files(needed);
  if (needed <= allowed) return;
  fail(ExitCode::io,
       "data.train and data.validation: {} shards and {} files beside them are open at once, the system allows {}; "
       "raise `ulimit -Hn`, or build fewer and larger shards (data build --shard-tokens)",
       shards, kBesideShards, allowed);
}

std::string thread_caveat(int threads, int usable_cores) {
  if (threads <= usable_cores) return {};
  return fmt::format(
      "run.threads = {}: this process may use {} core{} (affinity, CPU quota of its control group), so threads will "
      "wait for each other; run.threads = 0 takes as many as there are cores",
      threads, usable_cores, usable_cores == 1 ? "" : "s");
}

DiskRoom disk_room(const std::filesystem::path& directory) {
  DiskRoom left;
  const auto bounded = [](double count) {
    constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
    return count < static_cast<double>(kMost) ? static_cast<std::int64_t>(count) : kMost;
  };
  struct statvfs system {};
  if (::statvfs(directory.c_str(), &system) == 0) {
    left.bytes = bounded(static_cast<double>(system.f_bavail) * static_cast<double>(system.f_frsize));
    if (system.f_files > 0) left.files = bounded(static_cast<double>(system.f_favail));  // else they are not counted
  }
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0) left.largest_file = bounded(static_cast<double>(limit.rlim_cur));
  return left;
}

void check_disk(const std::filesystem::path& place, const DiskRoom& left, const DiskNeed& need, std::string_view what,
                std::string_view remedy) {
  if (left.bytes < need.bytes) {
    fail(ExitCode::io, "{}: {:.1f} MiB are free, {} takes {:.1f}; make room, or {}", place.string(),
         mebibytes(left.bytes), what, mebibytes(need.bytes), remedy);
  }
  if (left.files < need.files) {
    fail(ExitCode::io, "{}: its file system takes {} more files (df -i), {} has {}; remove some, or {}", place.string(),
         left.files, what, need.files, remedy);
  }
  if (left.largest_file < need.largest_file) {
    fail(ExitCode::io,
         "{}: a file of {} takes {:.1f} MiB, the system lets this process write {:.1f} at most; raise `ulimit -f`",
         place.string(), what, mebibytes(need.largest_file), mebibytes(left.largest_file));
  }
}

LeastRoom least_room(Communicator& world, const DiskRoom& own) {
  LeastRoom least{.room = own, .bytes_of = {}, .files_of = {}, .largest_file_of = {}};
  if (world.size() == 1) return least;
  constexpr std::int64_t kNumbers = 3;
  const std::array<std::int64_t, kNumbers> mine = {own.bytes, own.files, own.largest_file};
  std::vector<std::array<std::int64_t, kNumbers>> all(static_cast<std::size_t>(world.size()));
  world.all_gather(view_of(all.front().data(), DType::i64, {kNumbers * world.size()}),
                   view_of(mine.data(), DType::i64, {kNumbers}));
  const auto poorest = [&](std::size_t number, std::int64_t& bound, std::string& whose) {
    const auto found = std::min_element(all.begin(), all.end(),
                                        [number](const auto& a, const auto& b) { return a[number] < b[number]; });
    bound = (*found)[number];
    whose = place_of(world, static_cast<int>(found - all.begin()));
  };
  poorest(0, least.room.bytes, least.bytes_of);
  poorest(1, least.room.files, least.files_of);
  poorest(2, least.room.largest_file, least.largest_file_of);
  return least;
}

void check_room(const std::filesystem::path& directory, const LeastRoom& least, const CheckpointNeed& need,
                bool has_checkpoint) {
  const DiskRoom& left = least.room;
  const auto on = [](const std::string& whose) { return whose.empty() ? whose : " on " + whose; };
  const std::int64_t checkpoints = has_checkpoint ? 1 : 2;
  const char* const what = has_checkpoint ? "another checkpoint" : "two checkpoints";
  const std::int64_t bytes = checkpoints * need.bytes + kBesideCheckpoints;
  if (left.bytes < bytes) {
    fail(ExitCode::io,
         "{}: {:.1f} MiB are free{}, {:.1f} are needed: {} of {:.1f} and what stands beside; make room, or set "
         "run.directory to where there is some",
         directory.string(), mebibytes(left.bytes), on(least.bytes_of), mebibytes(bytes), what, mebibytes(need.bytes));
  }
  const std::int64_t files = checkpoints * need.files + kFilesBeside;
  if (left.files < files) {
    fail(ExitCode::io,
         "{}: its file system takes {} more files{} (df -i), {} are needed: {} of {} and what stands beside; remove "
         "some, or set run.directory to where there is room",
         directory.string(), left.files, on(least.files_of), files, what, need.files);
  }
  if (left.largest_file < need.largest_file + kHeader) {
    fail(ExitCode::io,
         "{}: a file of a checkpoint takes {:.1f} MiB, the system lets this process write {:.1f} at most{}; raise "
         "`ulimit -f`{}",
         directory.string(), mebibytes(need.largest_file + kHeader), mebibytes(left.largest_file),
         on(least.largest_file_of), least.largest_file_of.empty() ? "" : " there");
  }
}

}  // namespace shoestring
