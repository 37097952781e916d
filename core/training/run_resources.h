// What a run needs before its first step, built from the recipe in one place: device, data, model, optimizer.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/budget/hardware.h"
#include "core/generation/suite_run.h"
#include "core/model/transformer.h"
#include "core/optimizer/optimizer.h"
#include "core/recipe/model_from.h"
#include "core/recipe/recipe.h"
#include "core/training/import.h"
#include "core/training/layout.h"
#include "core/training/memory_plan.h"
#include "core/training/room.h"
#include "data/loader.h"
#include "data/tokenizer.h"
#include "kernels/base/limits.h"
#include "kernels/base/workers.h"
#include "parallel/mesh.h"

namespace shoestring {

/// RUN, from run.directory or runs/NAME.
std::filesystem::path run_directory(const Recipe& recipe);

/// The device that budget.hardware names; nothing known of it where it names none.
Hardware hardware_of(const Recipe& recipe, const std::filesystem::path& recipe_folder);

/// The tokenizer file of the recipe: data.tokenizer, or the one beside (or above) the first training shard.
std::filesystem::path tokenizer_file(const Recipe& recipe);

/// What a phase is trained on, and what is held out for it: its own, or that of [data].
const std::vector<SourceSpec>& train_sources(const Recipe& recipe, std::size_t phase);
const std::vector<SourceSpec>& validation_sources(const Recipe& recipe, std::size_t phase);

/// Of `phase`, without weights.
LoaderOptions loader_options(const Recipe& recipe, const std::vector<SourceSpec>& sources, const PhaseSpec& phase,
                             std::uint64_t seed, const Tokenizer& tokenizer);

/// What of its machine a rank may take, and where it trains.
struct MachineShare {
  int ranks_on_cores = 1;      ///< that may run on the same cores, this one included
  MemoryLeft memory{};         ///< without a limit unless set
  Device device{};             ///< that tensors lie on
  MemoryLeft device_memory{};  ///< of a CUDA device; without a limit unless set
  std::string device_text{};   ///< DeviceChoice::text
  std::string device_pci{};    ///< CudaDeviceFacts::pci
};
/// Of the processor. Collective: every rank looks before any of them takes memory.
MachineShare machine_share(Communicator& world);
/// The same, and the device that the recipe asks for. Throws as choose_device.
MachineShare machine_share(const Recipe& recipe, Communicator& world);

/// How the shards of a phase are read.
struct ShardReading {
  const ShardStorage* storage = &system_storage();
  StoragePatience patience{};
};

class RunResources {
 public:
  /// Collective. The model is that of the first phase, its part that of `layout`, the place in `mesh`, which must
  /// outlive it. Throws Error(io) where the model does not fit into what `share` leaves, on its device or beside it,
  /// and as check_alike where ranks read different tokenizers or questions.
  RunResources(const Recipe& recipe, const Layout& layout, Mesh& mesh, const MachineShare& share);

  Workers& workers() { return workers_; }
  Stream& stream() { return stream_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  Transformer& model() { return *model_; }
  Optimizer& optimizer() { return *optimizer_; }
  /// Where the pipeline is cut: as the layout says, unless the recipe has it measured.
  const std::vector<std::int64_t>& stage_layers() const { return layout_.stage_layers; }
  /// reach_text of where the experts are.
  std::string reach_text() const;
  /// How the cut was found; empty where nothing was measured.
  const std::string& cut_text() const { return cut_text_; }

  /// Of the recipe (model_from.h).
  bool begins_with_weights(int phase) const;
  /// Model and optimizer become those of a phase that trains other weights than the present ones; whether they had to.
  /// The weights stay as they are, with what adapters came to added to them; whoever holds the model or the optimizer
  /// takes them anew, and new adapters have their first values from begin_weights or from a checkpoint.
  bool fit_to(int phase);
  /// These: new ones, or those of a folder (model.from, phase.NAME.from). What the ledger should know of the latter,
  /// under which key; empty for new ones. `keeps`: this rank keeps what RUN keeps of the folder. The optimizer begins
  /// anew; weights want to be prepared. Collective; throws as check_alike where ranks read different folders.
  struct Begun {
    std::string key;
    std::string what;
  };
  Begun begin_weights(int phase, bool keeps, const TellProgress& tell = nullptr);
  /// The run goes on in `phase`, with weights of a checkpoint.
  void goes_on_in(int phase);
  /// Files of the folder that the present weights come from (import.h).
  const ModelFiles& carried() const { return carried_; }
  /// Of the model with these files.
  TextIds text_ids() const;

  /// The questions that are asked at the end of a phase; none where no suites are named.
  const std::vector<SuiteRequest>& suites(int phase) const { return suites_.at(index_of(phase)); }

  /// What this rank holds, by the plan, where its tensors lie.
  MemoryPlan memory_plan() const { return memory_plan(recipe_); }

  /// What a checkpoint takes on a disk that writes 200 MB a second: the guess until one has been written.
  double guessed_checkpoint_seconds() const;

  /// The training data of a phase. Throws Error(bad_data) when shards and tokenizer do not belong together, and as
  /// check_alike where ranks read different ones. Collective.
  std::unique_ptr<Loader> train_loader(int phase, const ShardReading& reading = {}) const;
  /// One loader per validation source, at the phase's sequence length. Likewise.
  std::vector<std::unique_ptr<Loader>> validation_loaders(int phase, const ShardReading& reading = {}) const;

 private:
  static std::size_t index_of(int phase) { return static_cast<std::size_t>(phase); }
  TransformerOptions whole(const Recipe& recipe, int phase) const;
  void read_texts();
  void check_room_in_memory(const MachineShare& share) const;
  std::vector<MemoryChange> memory_changes(Device device) const;
  void cut_as_measured();
  void look_at_sources();
  std::int64_t suite_bytes() const;
  std::unique_ptr<Transformer> declare(const Recipe& recipe, int phase) const;
  MemoryPlan memory_plan(const Recipe& recipe) const;
  bool adapts(int phase) const { return lora_of(recipe_, recipe_.phases.at(index_of(phase))).rank > 0; }
  std::unique_ptr<Import> open_source(int phase) const;
  std::unique_ptr<Loader> checked(LoaderOptions options) const;

  const Recipe& recipe_;
  Layout layout_;  ///< with the stages cut as they were measured
  Mesh& mesh_;
  Workers workers_;
  Stream stream_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<std::vector<SuiteRequest>> suites_;  ///< of each phase
  std::unique_ptr<ExpertExchange> exchange_;       ///< where experts are shared
  std::unique_ptr<Objective> objective_;           ///< of the whole run; null: the next token
  std::string cut_text_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<Import> import_;  ///< that the run begins with, until the weights are read
  ModelFiles carried_;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace shoestring
