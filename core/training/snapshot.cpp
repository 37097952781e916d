#include "core/training/snapshot.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "core/training/model_files.h"
#include "core/training/rank_texts.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

/// What this rank of `mesh` writes.
Writer writer(const Mesh& mesh, const SnapshotParts& parts) {
  return {.weights = !parts.shares_state || mesh.at().replica == 0, .shares_state = parts.shares_state};
}

/// Those who write.
Communicator& team(Mesh& mesh, const SnapshotParts& parts) { return parts.shares_state ? mesh.world() : mesh.model(); }

constexpr std::int64_t kTexts = 16;  // config, tokenizer, index, state, manifest, latest, the two folders

/// Collective over those who write.
CheckpointNeed need_over(Mesh& mesh, const SnapshotParts& parts) {
  const CheckpointTensors own = checkpoint_tensors(parts.model, parts.optimizer, writer(mesh, parts));
  std::int64_t weights = 0, optimizer = 0, largest_weight = 0;
  for (const NamedTensor& tensor : own.weights) {
    weights += tensor.data.bytes();
    largest_weight = std::max(largest_weight, tensor.data.bytes());
  }
  for (const NamedTensor& tensor : own.optimizer) optimizer += tensor.data.bytes();
  const std::int64_t model_file = std::min(weights, std::max(kModelFileBytes, largest_weight));
  std::array<std::int64_t, 2> sums = {weights + optimizer, 2 + weights / kModelFileBytes};
  std::int64_t largest = std::max(model_file, optimizer);
  Communicator& writers = team(mesh, parts);
  if (writers.size() > 1) {
    writers.all_reduce(view_of(sums.data(), DType::i64, {2}));
    writers.all_reduce(view_of(&largest, DType::i64, {1}), Reduction::max);
  }
  return {.bytes = sums[0], .largest_file = largest, .files = sums[1] + kTexts};
}

}  // namespace

CheckpointNeed Snapshots::need(const SnapshotParts& parts) { return need_over(mesh_, parts); }

Snapshots::Snapshots(std::filesystem::path root, Mesh& mesh, Meter& meter)
    : store_(std::move(root)), mesh_(mesh), meter_(meter) {}

std::filesystem::path Snapshots::newest(const CheckpointNotice& notice, const Between& between) {
  std::string newest;
  if (writes()) newest = store_.newest(notice, between).value_or("").string();
  return broadcast_text(mesh_.world(), newest, 0);
}

std::filesystem::path Snapshots::of_step(std::int64_t step) {
  std::string place;
  if (writes() && step >= 0) {
    const std::filesystem::path folder = store_.folder_of(step);
    if (type_of(folder) == std::filesystem::file_type::directory && checkpoint_damage(folder).empty()) {
      place = folder.string();
    }
  }
  return broadcast_text(mesh_.world(), place, 0);
}

TrainingState Snapshots::state_of(const std::filesystem::path& checkpoint) {
  return training_state_from_json(CheckpointReader(checkpoint).state_json(), checkpoint.string());
}

void Snapshots::load(const std::filesystem::path& checkpoint, const SnapshotParts& parts, const Between& between) {
  const CheckpointReader reader(checkpoint);
  load_weights(reader, parts.model, between);
  load_optimizer(reader, parts.optimizer, between);
}

bool Snapshots::holds_all(const SnapshotParts& parts) const {
  return mesh_.shape().ranks_of_model() == 1 && (!parts.shares_state || mesh_.shape().data == 1);
}

CheckpointCommit Snapshots::save(const SnapshotParts& parts, const TrainingState& state, int keep,
                                 const CheckpointNotice& notice) {
  return save_over(mesh_, parts, state, keep, notice);
}

CheckpointCommit Snapshots::save_over(Mesh& mesh, const SnapshotParts& parts, const TrainingState& state, int keep,
                                      const CheckpointNotice& notice) {
  const Meter::Scope timing(meter_, Category::checkpoint);
  const double begin = meter_.elapsed_seconds();
  if (takes_part(parts)) write(parts, state, keep, notice, team(mesh, parts));
  mesh.world().barrier();
  return commit(need_over(mesh, parts).bytes, state, begin);
}

CheckpointCommit Snapshots::save_alone(const SnapshotParts& parts, const TrainingState& state, int keep,
                                       const CheckpointNotice& notice) {
  const Meter::Scope timing(meter_, Category::checkpoint);
  const double begin = meter_.elapsed_seconds();
  check(holds_all(parts), "one rank that has a part of the model saves alone");
  write(parts, state, keep, notice, *self_communicator());
  return commit(need(parts).bytes, state, begin);
}

// An exception leaves writing_ set: saving is what failed.
void Snapshots::write(const SnapshotParts& parts, const TrainingState& state, int keep, const CheckpointNotice& notice,
                      Communicator& team) {
  writing_ = true;
  // Weights that no finite step comes from may have been broken by the last update: not all that is kept may be theirs.
  store_.spare({state.best_step, state.guard.skipped_in_row > 0 ? state.proven_step : -1});
  parts.model.stream().synchronize();  // a device may be behind
  const ModelFiles none;
  store_.save(state.step,
              checkpoint_content(parts.model, parts.optimizer, parts.tokenizer, to_json(state),
                                 parts.carried != nullptr ? *parts.carried : none, writer(mesh_, parts)),
              keep, notice, team);
  writing_ = false;
}

CheckpointCommit Snapshots::commit(std::int64_t bytes, const TrainingState& state, double begin) {
  step_ = state.step;
  saved_at_ = meter_.elapsed_seconds();
  return {.step = state.step,
          .tokens = state.tokens,
          .name = fmt::format("step_{:08}", state.step),
          .bytes = bytes,
          .took_seconds = saved_at_ - begin};
}

}  // namespace shoestring
