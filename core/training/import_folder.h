// A Hugging Face model folder, opened to take weights from: config.json, and model.safetensors or several files with an
// index. Ours and foreign; a checkpoint of a run is one.
//
// Everything is foreign: names of files stay inside the folder, the index and the files must name the same tensors, no
// tensor comes twice, and what the files hold bounds what config.json may ask memory for. Every fault is an Error of
// bad_data (missing_input where a file is not there) with file and place.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/model/hugging_face_config.h"
#include "core/training/safetensors.h"

namespace shoestring {

class ImportFolder {
 public:
  /// Opens every file and reads all headers; no tensor yet.
  explicit ImportFolder(std::filesystem::path folder);

  const std::filesystem::path& path() const { return path_; }
  /// As config.json says, but without multi-token prediction where the files have none.
  const ModelConfig& config() const { return config_; }
  const ModelFileFacts& facts() const { return facts_; }

  /// A tensor and the file that holds it.
  struct Place {
    const SafetensorsFile* file = nullptr;
    const SafetensorsFile::Entry* entry = nullptr;
  };
  const std::map<std::string, Place>& tensors() const { return tensors_; }
  /// Without a file where there is none of this name.
  Place find(const std::string& name) const;

  /// Files that belong to the model and are not ours to write: licence, tokenizer, chat template, generation settings.
  /// Name and content, by name.
  std::vector<std::pair<std::string, std::string>> companions() const;
  /// Names the folder's content in ledgers: a hash over the names and contents of config.json, the weights and the
  /// companions. Reads every byte; `progress` is told after each file.
  std::string hash(
      const std::function<void(std::int64_t done_bytes, std::int64_t all_bytes)>& progress = nullptr) const;

 private:
  void open_files();
  void check_sizes() const;

  std::filesystem::path path_;
  ModelConfig config_;
  ModelFileFacts facts_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Place> tensors_;
};

}  // namespace shoestring
