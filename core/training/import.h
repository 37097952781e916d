// A run, or a phase, that begins with open weights (model.from, phase.NAME.from).
//
// The folder is looked at before memory is taken, and read once. What belongs to the model and is not ours (licence,
// tokenizer, chat template) is kept in RUN/source (RUN/source.NAME of a later phase) and goes into every checkpoint, so
// that no later start needs the folder for it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "core/model/transformer.h"
#include "core/training/import_weights.h"
#include "core/training/model_files.h"
#include "core/training/work_progress.h"
#include "data/tokenizer.h"

namespace shoestring {

class Import {
 public:
  /// What was read.
  struct Read {
    std::string text;  ///< for the ledger: name and hash of the source, formats, licence
    std::string hash;  ///< ImportFolder::hash
  };

  /// Finds all weights of `model` in `folder`. Throws as ImportFolder and plan_import do.
  Import(const std::filesystem::path& folder, const Transformer& model);

  /// Reads them into the model, which has memory by now. `tell` hears how far it is.
  Read run(const TellProgress& tell = nullptr) const;

  /// The source's files, its config.json among them.
  ModelFiles files() const;
  /// Throws Error(bad_data) where the folder holds a tokenizer that this program reads and it is not `tokenizer`: the
  /// ids would mean other words.
  void check_tokenizer(const Tokenizer& tokenizer) const;

 private:
  ImportFolder folder_;
  ImportPlan plan_;
};

/// Keeps them in `place`, and reads them back: none where nothing was kept.
void keep_source(const std::filesystem::path& place, const ModelFiles& files);
ModelFiles kept_source(const std::filesystem::path& place);

}  // namespace shoestring
