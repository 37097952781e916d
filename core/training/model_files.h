// A model and its optimizer as the files of a checkpoint, and back.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/model/transformer.h"
#include "core/optimizer/optimizer.h"
#include "core/training/checkpoint.h"
#include "data/tokenizer.h"

namespace shoestring {

/// Files of a model folder: name, content.
using ModelFiles = std::vector<std::pair<std::string, std::string>>;

/// What a rank puts into a checkpoint, for itself and those that have the same.
struct Writer {
  bool weights = true;        ///< those it speaks for (Transformer::speaks_for)
  bool shares_state = false;  ///< optimizer state: all it has, since nobody else has it; else like the weights
};

/// Master weights under their disk names, aliases included, and what training goes on from: optimizer state, parts of a
/// tensor as "NAME#BEGIN", flat, and, of adapters, "factor.NAME" and, as they were, the weights that they add to,
/// "base.NAME". Borrows the memory of both.
struct CheckpointTensors {
  std::vector<NamedTensor> weights;
  std::vector<NamedTensor> optimizer;
};
CheckpointTensors checkpoint_tensors(const Transformer& model, Optimizer& optimizer, const Writer& writer = {});

/// Those tensors, the weights with what adapters add; config.json, generation_config.json and the tokenizer's files.
/// `carried` are those of the folder that the run began with, its config.json among them: they take the place of ours,
/// those of a tokenizer only where it is the run's. Borrows the model's memory.
CheckpointContent checkpoint_content(Transformer& model, Optimizer& optimizer, const Tokenizer& tokenizer,
                                     std::string state_json, const ModelFiles& carried = {}, const Writer& writer = {});

/// Those files of the folder that are not weights: config.json and the others, as checkpoint_content has them.
ModelFiles folder_files(const ModelConfig& config, const Tokenizer& tokenizer, const ModelFiles& carried);

/// What other readers make of the tokenizer of such a model, where it is not what it says; empty where it is.
std::string tokenizer_caveat(Architecture architecture);
/// What transformers makes of the router of such a model, where it is another one; empty where it is the same.
std::string router_caveat(const ModelConfig& config);

/// Fills the weights; aliases are not read. `between` is called between tensors.
void load_weights(const CheckpointReader& reader, Transformer& model, const Between& between = nullptr);
void load_optimizer(const CheckpointReader& reader, Optimizer& optimizer, const Between& between = nullptr);

}  // namespace shoestring
