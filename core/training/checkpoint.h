// Checkpoints: RUN/checkpoints/step_00000120 is a Hugging Face model folder plus training/ and a manifest.
//
//   config.json, generation_config.json, tokenizer files      as the model's readers expect them
//   model.safetensors, or model-00001-of-000NN + index        master weights under their disk names
//   training/optimizer.safetensors                            optimizer state under the same names
//   training/state.json                                       counters, data cursor, guard windows, schedule
//   manifest.json                                             size and hash of every file
//
// Commit: everything is written to a private folder, fsynced, read back against its hashes, renamed, and the parent
// fsynced; then the pointer checkpoints/latest follows the same way. Older checkpoints are deleted only afterwards. So
// after the first commit there is always a valid checkpoint, whatever fails and whenever.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/training/safetensors.h"

namespace shoestring {

/// What goes into a checkpoint; tensors borrow live host memory.
struct CheckpointContent {
  std::vector<NamedTensor> weights;
  std::vector<NamedTensor> optimizer;
  std::vector<std::pair<std::string, std::string>> files;  ///< other files of the model folder: name, content
  std::string state_json;
};

/// Tells the user about a checkpoint that was passed over, and why.
using CheckpointNotice = std::function<void(const std::string&)>;

class CheckpointStore {
 public:
  /// `root` is RUN/checkpoints; created on the first save. What an interrupted save left behind is removed then.
  explicit CheckpointStore(std::filesystem::path root, std::int64_t model_file_limit_bytes = std::int64_t{4} << 30);

  /// Commits a checkpoint and keeps the newest `keep`; returns its folder. Throws Error(io) and leaves every older
  /// checkpoint as it was.
  std::filesystem::path save(std::int64_t step, const CheckpointContent& content, int keep);

  /// The newest checkpoint whose every file has the size and hash of its manifest. A damaged one is passed over with a
  /// notice. Nothing when there is none at all; Error(corrupt_checkpoint) when there are some, all damaged.
  std::optional<std::filesystem::path> newest(const CheckpointNotice& notice) const;

  /// All committed checkpoints, newest step first; not verified.
  std::vector<std::filesystem::path> all() const;

  const std::filesystem::path& root() const { return root_; }

 private:
  std::filesystem::path root_;
  std::int64_t model_file_limit_bytes_;
};

/// Empty when every file is as its manifest says; otherwise what is wrong, naming the file.
std::string checkpoint_damage(const std::filesystem::path& checkpoint);

/// Reads tensors of a checkpoint's model files (one, or several with an index) or of its optimizer file.
class CheckpointReader {
 public:
  explicit CheckpointReader(std::filesystem::path checkpoint);
  bool holds_weight(const std::string& name) const;
  void read_weight(const std::string& name, TensorView to) const;
  void read_optimizer(const std::string& name, TensorView to) const;
  std::string state_json() const;
  std::string file(const std::string& name) const;

 private:
  std::filesystem::path checkpoint_;
  std::vector<SafetensorsFile> model_;
  std::optional<SafetensorsFile> optimizer_;
};

}  // namespace shoestring
