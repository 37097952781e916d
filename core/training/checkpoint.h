// Checkpoints: RUN/checkpoints/step_00000120 is a Hugging Face model folder plus training/ and a manifest.
//
//   config.json, generation_config.json, tokenizer files      as the model's readers expect them
//   model.safetensors, or model-00001-of-000NN + index        master weights under their disk names
//   training/optimizer.safetensors, or -00001-of-000NN        optimizer state under the same names; where ranks share
//                                                             it, parts of a tensor as NAME#BEGIN, flat; with adapters
//                                                             they, and the weights as they were (model_files.h)
//   training/state.json                                       counters, data cursor, guard windows, schedule
//   manifest.json                                             size and hash of every file
//
// Of several ranks that hold a model together each writes files of its own, side by side; index and manifest are one.
//
// Commit: everything is written to a private folder, fsynced, read back against its hashes, renamed, and the parent
// fsynced; then the pointer checkpoints/latest follows the same way. Older checkpoints are deleted only afterwards. So
// after the first commit there is always a valid checkpoint, whatever fails and whenever.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/training/safetensors.h"
#include "kernels/base/file.h"
#include "parallel/communicator.h"

namespace shoestring {

/// What one rank puts into a checkpoint; tensors borrow live host memory.
struct CheckpointContent {
  std::vector<NamedTensor> weights;
  std::vector<NamedTensor> optimizer;
  std::vector<std::pair<std::string, std::string>> files;  ///< other files of the model folder: name, content
  std::string state_json;
  std::vector<Tensor> merged{};  ///< what some of the weights borrow
};

/// Tells the user about a checkpoint that was passed over or could not be removed, and why.
using CheckpointNotice = std::function<void(const std::string&)>;

/// A checkpoint's name under which no folder can be seen.
struct UnseenCheckpoint {
  std::filesystem::path path;
  bool dead_link = false;  ///< else something that is no folder
  std::string why;
};

inline constexpr std::int64_t kModelFileBytes = std::int64_t{4} << 30;  ///< of one file of weights

/// What a checkpoint takes on disk.
struct CheckpointNeed {
  std::int64_t bytes = 0;         ///< of its tensors
  std::int64_t largest_file = 0;  ///< bytes
  std::int64_t files = 0;         ///< at most; folders are files too
};

class CheckpointStore {
 public:
  /// `root` is RUN/checkpoints, a folder or a link to one; created on the first save. What an interrupted save left
  /// behind is removed then.
  explicit CheckpointStore(std::filesystem::path root, std::int64_t model_file_limit_bytes = kModelFileBytes);

  /// Commits a checkpoint and keeps the newest `keep`; returns its folder. Throws Error(io) and leaves every older
  /// checkpoint as it was. An older one that cannot be removed is told to `notice`. Of one that is a link only the link
  /// is removed.
  std::filesystem::path save(std::int64_t step, const CheckpointContent& content, int keep,
                             const CheckpointNotice& notice);
  /// The same by the ranks of `team` together, each with its own tensors; collective. The first one's other files,
  /// `keep` and `notice` count. What goes wrong before the commit on one is thrown on all.
  std::filesystem::path save(std::int64_t step, const CheckpointContent& content, int keep,
                             const CheckpointNotice& notice, Communicator& team);

  /// The newest checkpoint whose every file has the size and hash of its manifest. A damaged one is passed over with a
  /// notice. Nothing when there is none at all; Error(corrupt_checkpoint) when there are some, all damaged. What cannot
  /// be looked at is not passed over, since the run would go on from an older one: Error(io) where the system refuses
  /// (rights, say), Error(missing_input) where a newer one is a link that leads nowhere.
  /// All of it is read: `between` pieces an Error(preempted) may leave.
  std::optional<std::filesystem::path> newest(const CheckpointNotice& notice, const Between& between = nullptr) const;

  /// All committed checkpoints, newest step first; not verified. Links to folders are among them. Throws Error(io) or
  /// Error(missing_input) where they cannot be listed; only an absent `root` holds none.
  std::vector<std::filesystem::path> all() const;
  /// Links that lead nowhere and files under the name of a checkpoint, newest step first; nobody removes them.
  std::vector<UnseenCheckpoint> unseen() const;

  /// From now on the checkpoints of these steps stay, however many newer ones there are; -1 is none.
  void spare(std::vector<std::int64_t> steps) { spared_ = std::move(steps); }
  std::filesystem::path folder_of(std::int64_t step) const;

  const std::filesystem::path& root() const { return root_; }

 private:
  /// Whatever has a checkpoint's name, newest step first.
  std::vector<std::filesystem::path> named() const;
  void commit(const std::filesystem::path& partial, const std::filesystem::path& committed,
              const CheckpointNotice& notice) const;
  void make_room(std::int64_t step, int keep, const CheckpointNotice& notice) const;

  std::filesystem::path root_;
  std::int64_t model_file_limit_bytes_;
  std::vector<std::int64_t> spared_;
};

/// The step in a checkpoint's name; -1: it is no checkpoint's name.
std::int64_t step_of(const std::filesystem::path& checkpoint);

enum class Look : std::uint8_t { sizes, content };

/// Empty when every file is as its manifest says (by size alone, or by hash too); otherwise what is wrong, naming the
/// file. Throws Error(io) where a file is there and the system does not let it be read: that is no damage.
std::string checkpoint_damage(const std::filesystem::path& checkpoint, Look look = Look::content,
                              const Between& between = nullptr);

/// The same for a start: the Error(io) says why no older checkpoint is taken instead.
std::string damage_of(const std::filesystem::path& checkpoint, Look look, const Between& between = nullptr);

/// `place` where it holds a config.json, else the newest sound checkpoint of the run there. Throws
/// Error(missing_input), and as CheckpointStore::newest.
std::filesystem::path model_folder_of(const std::filesystem::path& place, const CheckpointNotice& notice);

/// Reads tensors of a checkpoint's model files (one, or several with an index) or of its optimizer files.
class CheckpointReader {
 public:
  explicit CheckpointReader(std::filesystem::path checkpoint);
  bool holds_weight(const std::string& name) const;
  void read_weight(const std::string& name, TensorView to) const;
  /// `to` is the tensor as it is on the disk or, if `part`, its flat elements from `begin` on; either may have been
  /// written whole or in parts.
  void read_optimizer(const std::string& name, std::int64_t begin, bool part, TensorView to) const;
  std::string state_json() const;
  std::string file(const std::string& name) const;

 private:
  /// Elements [begin, begin + elements) of a flat tensor in one of the optimizer's files.
  struct StoredPart {
    const SafetensorsFile* file = nullptr;
    const SafetensorsFile::Entry* entry = nullptr;
    std::int64_t begin = 0;
    std::int64_t elements = 0;
  };
  void index_parts();

  std::filesystem::path checkpoint_;
  std::vector<SafetensorsFile> model_;
  std::vector<SafetensorsFile> optimizer_;
  std::map<std::string, std::vector<StoredPart>> parts_;  ///< of optimizer tensors, by their first elements
};

/// "NAME#BEGIN": elements of a flat tensor from `begin` on.
std::string part_name(const std::string& tensor, std::int64_t begin);

}  // namespace shoestring
