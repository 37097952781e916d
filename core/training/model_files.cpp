#include "core/training/model_files.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/model/adapter.h"
#include "core/model/hugging_face_config.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

TensorView on_disk(const Parameter& parameter, const ParameterSlice& slice) {
  return parameter.value.slice(0, slice.begin, slice.rows).reshaped(slice.shape);
}

/// Of a run that began with new weights.
ModelFiles own_files(const Tokenizer& tokenizer) {
  const std::int64_t eos = tokenizer.special().end_of_document;
  ModelFiles files;
  files.emplace_back("generation_config.json",
                     fmt::format("{{\n \"eos_token_id\": {},\n \"do_sample\": true\n}}\n", eos));
  files.emplace_back(tokenizer.file_name(), tokenizer.file_content());
  for (auto& file : tokenizer.companion_files()) files.push_back(std::move(file));
  return files;
}

const std::string* find_file(const ModelFiles& files, const std::string& name) {
  const auto found = std::find_if(files.begin(), files.end(), [&](const auto& file) { return file.first == name; });
  return found == files.end() ? nullptr : &found->second;
}

bool is_licence(const std::string& name) {
  return name.starts_with("LICEN") || name.starts_with("NOTICE") || name.starts_with("USE_POLICY");
}

/// Ours, and the carried ones over them.
ModelFiles files_of(const Tokenizer& tokenizer, const ModelFiles& carried, bool same_tokenizer) {
  ModelFiles files = own_files(tokenizer);
  for (const auto& [name, content] : carried) {
    if (name == "config.json" || (!same_tokenizer && !is_licence(name))) continue;
    std::erase_if(files, [&, &carried_name = name](const auto& file) { return file.first == carried_name; });
    files.emplace_back(name, content);
  }
  return files;
}

bool adapted(const Parameter& parameter, const ParameterSlice& slice) {
  return parameter.adapter != nullptr && parameter.adapter->adapts(slice);
}

std::string base_name(const ParameterSlice& slice) { return "base." + slice.name; }
std::string factor_name(const ParameterSlice& slice) { return "factor." + slice.name; }

/// Readers of the folder know no adapters: they get the sum.
void merge_adapters(Transformer& model, CheckpointContent& content) {
  std::map<std::string, NamedTensor*> by_name;
  for (NamedTensor& weight : content.weights) by_name.emplace(weight.name, &weight);
  for (const Parameter* parameter : model.parameters()) {
    for (const ParameterSlice& slice : parameter->slices) {
      const auto weight = by_name.find(slice.name);
      if (!adapted(*parameter, slice) || weight == by_name.end()) continue;
      const ConstTensorView base = parameter->value.slice(0, slice.begin, slice.rows);
      Tensor& merged = content.merged.emplace_back(base.dtype, base.shape, base.device);
      copy_tensor(merged.view(), base, model.stream());
      parameter->adapter->add_to(merged.view(), slice, model.stream());
      weight->second->data = merged.view().reshaped(slice.shape);
    }
  }
}

}  // namespace

CheckpointTensors checkpoint_tensors(const Transformer& model, Optimizer& optimizer, const Writer& writer) {
  CheckpointTensors tensors;
  std::map<std::string, ConstTensorView> by_name;
  std::set<std::string> of_others;  // their state is written by other ranks
  for (const Parameter* parameter : model.parameters()) {
    for (const ParameterSlice& slice : parameter->slices) {
      const ConstTensorView data = on_disk(*parameter, slice);
      by_name.emplace(slice.name, data);
      const bool speaks = model.speaks_for(*parameter);
      const bool own = writer.shares_state ? !model.is_copy(*parameter) : speaks;
      if (!own) of_others.insert(slice.name);
      if (!writer.weights || !speaks) continue;
      if (parameter->role == ParameterRole::factor) {
        tensors.optimizer.push_back({factor_name(slice), data});
      } else {
        tensors.weights.push_back({slice.name, data});
        if (adapted(*parameter, slice)) tensors.optimizer.push_back({base_name(slice), data});
      }
    }
  }
  if (writer.weights && model.experts().rank == 0) {  // what has a second name is dense
    for (const TensorAlias& alias : model.aliases()) tensors.weights.push_back({alias.name, by_name.at(alias.of)});
  }
  for (const OptimizerState& state : optimizer.state()) {
    const std::string tensor = state.name.substr(state.name.find('.') + 1);  // "exp_avg.TENSOR"
    if (of_others.contains(tensor)) continue;
    tensors.optimizer.push_back({state.part ? part_name(state.name, state.begin) : state.name, state.data});
  }
  return tensors;
}

CheckpointContent checkpoint_content(Transformer& model, Optimizer& optimizer, const Tokenizer& tokenizer,
                                     std::string state_json, const ModelFiles& carried, const Writer& writer) {
  CheckpointContent content;
  CheckpointTensors tensors = checkpoint_tensors(model, optimizer, writer);
  content.weights = std::move(tensors.weights);
  content.optimizer = std::move(tensors.optimizer);
  merge_adapters(model, content);
  content.files = folder_files(model.config(), tokenizer, carried);
  content.state_json = std::move(state_json);
  return content;
}

ModelFiles folder_files(const ModelConfig& config, const Tokenizer& tokenizer, const ModelFiles& carried) {
  const std::string* carried_tokenizer = find_file(carried, tokenizer.file_name());
  const bool same_tokenizer = carried_tokenizer != nullptr && *carried_tokenizer == tokenizer.file_content();
  ModelFileFacts facts{.eos_tokens = {tokenizer.special().end_of_document}};
  if (const std::string* source = find_file(carried, "config.json"); source != nullptr && same_tokenizer) {
    const ModelFileFacts theirs = read_hugging_face_facts(*source);
    facts.bos_token = theirs.bos_token;
    facts.eos_tokens = theirs.eos_tokens;
  }
  ModelFiles files{{"config.json", write_hugging_face_config(config, facts)}};
  for (auto& file : files_of(tokenizer, carried, same_tokenizer)) files.push_back(std::move(file));
  return files;
}

std::string tokenizer_caveat(Architecture architecture) {
  if (architecture != Architecture::qwen2) return {};
  return "for models of type qwen2 the AutoTokenizer of some transformers 5 puts Qwen's own normaliser and splitting "
         "in place of those in tokenizer.json, and other tokens come out; open it with "
         "PreTrainedTokenizerFast.from_pretrained";
}

std::string router_caveat(const ModelConfig& config) {
  if (config.architecture != Architecture::deepseek_v3 || config.router == RouterKindSpec::sigmoid) return {};
  return "transformers passes over the scoring_func of a deepseek_v3 and takes sigmoid: to it the model is another, "
         "with other logits";
}

void load_weights(const CheckpointReader& reader, Transformer& model, const Between& between) {
  for (const Parameter* parameter : model.parameters()) {
    for (const ParameterSlice& slice : parameter->slices) {
      if (between) between();
      const TensorView to = on_disk(*parameter, slice);
      if (parameter->role == ParameterRole::factor) {
        reader.read_optimizer(factor_name(slice), 0, false, to);
      } else if (adapted(*parameter, slice)) {
        reader.read_optimizer(base_name(slice), 0, false, to);
      } else {
        reader.read_weight(slice.name, to);
      }
    }
  }
}

void load_optimizer(const CheckpointReader& reader, Optimizer& optimizer, const Between& between) {
  for (const OptimizerState& state : optimizer.state()) {
    if (between) between();
    reader.read_optimizer(state.name, state.begin, state.part, state.data);
  }
}

}  // namespace shoestring
