#include "core/training/readers.h"

#include <algorithm>

#include "core/model/transformer.h"
#include "core/training/import_weights.h"
#include "core/training/model_files.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"
#include "kernels/base/presence.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kConfigBytesLimit = std::int64_t{1} << 20;

/// What the demands look at.
struct Facts {
  const ImportFolder& folder;
  const ModelConfig& model;
  Json config;
  bool framework_named = true;  ///< every file says which framework's tensors it holds
  bool ragged_blocks = false;   ///< a quantised matrix whose extents are no multiples of the block
  bool has_tokenizer_json = false;
  bool has_sentencepiece = false;
  bool further_copies = false;  ///< multi-token prediction has its embedding and head

  bool has(const char* key) const { return config.find(key) != nullptr && !config.find(key)->is_null(); }
};

Facts facts_of(const ImportFolder& folder) {
  const auto there = [&](const char* name) { return is_present(folder.path() / name); };
  Facts facts{folder, folder.config(),
              parse_json(read_file(folder.path() / "config.json", kConfigBytesLimit), "config.json")};
  for (const auto& [name, place] : folder.tensors()) {
    if (place.file->framework() != "pt") facts.framework_named = false;
    if (place.entry->dtype != DType::e4m3 || !folder.facts().fp8_block) continue;
    for (int dim = 0; dim < place.entry->shape.rank(); ++dim) {
      if (place.entry->shape[dim] % *folder.facts().fp8_block != 0) facts.ragged_blocks = true;
    }
  }
  facts.has_tokenizer_json = there("tokenizer.json");
  facts.has_sentencepiece = there("tokenizer.model");
  const std::string further = fmt::format("model.layers.{}.", folder.config().layers);
  facts.further_copies = folder.find(further + "embed_tokens.weight").file != nullptr &&
                         folder.find(further + "shared_head.head.weight").file != nullptr;
  return facts;
}

class Demands {
 public:
  explicit Demands(std::string reader) : verdict_{std::move(reader), Reading::whole, {}} {}
  Demands& must(bool holds, std::string reason) { return note(holds, Reading::refused, std::move(reason)); }
  Demands& care(bool holds, std::string reason) { return note(holds, Reading::with_care, std::move(reason)); }
  ReaderVerdict take() { return std::move(verdict_); }

 private:
  Demands& note(bool holds, Reading reading, std::string reason) {
    if (holds) return *this;
    verdict_.reading = std::max(verdict_.reading, reading);
    verdict_.reasons.push_back(std::move(reason));
    return *this;
  }
  ReaderVerdict verdict_;
};

ReaderVerdict ours(const Facts& facts) {
  Demands demands("shoestring");
  try {
    const Transformer model({.model = facts.model,
                             .precision = {},
                             .run = {.tokens = 1, .sequences = 1, .workers = 1},
                             .stages = 1,
                             .own_stages = {},
                             .count_precision = false});
    plan_import(facts.folder, model);
  } catch (const Error& error) {
    demands.must(false, error.what());
  }
  return demands.take();
}

/// Where only transformers 5 knows the key.
void old_keys(const Facts& facts, Demands& demands) {
  demands.must(
      facts.has("rope_theta") || !facts.has("rope_parameters"),
      "config.json has rope_parameters only, which it passes over: positions would be rotated with theta 10000");
  demands.must(facts.model.architecture != Architecture::qwen3_moe || facts.has("num_experts"),
               "config.json has num_local_experts only: it takes 128 experts");
}

ReaderVerdict transformers_4(const Facts& facts) {
  Demands demands("transformers 4.57");
  old_keys(facts, demands);
  const bool yarn_v2 = facts.model.architecture == Architecture::deepseek_v2 &&
                       facts.model.rope_scaling == RopeScalingKind::yarn && facts.model.rope_mscale_all_dim != 0;
  demands.must(facts.framework_named, "a safetensors file does not say {\"format\": \"pt\"}")
      .must(router_caveat(facts.model).empty(), router_caveat(facts.model))
      .must(!yarn_v2, "its deepseek_v2 leaves YaRN's factor out of the attention scale: other logits")
      .care(!facts.folder.facts().fp8_block, "FP8 in blocks needs a GPU")
      .care(facts.model.mtp_layers == 0, "multi-token prediction is passed over");
  return demands.take();
}

ReaderVerdict transformers_5(const Facts& facts) {
  Demands demands("transformers 5");
  demands.must(!facts.ragged_blocks, "it cannot dequantise FP8 matrices whose extents are no multiples of the block")
      .must(router_caveat(facts.model).empty(), router_caveat(facts.model))
      .care(!facts.folder.facts().fp8_block, "FP8 in blocks needs a GPU")
      .care(tokenizer_caveat(facts.model.architecture).empty(), tokenizer_caveat(facts.model.architecture))
      .care(facts.has_tokenizer_json || facts.has_sentencepiece, "there is no tokenizer");
  return demands.take();
}

ReaderVerdict server(const Facts& facts, const char* name) {
  Demands demands(name);
  old_keys(facts, demands);
  demands.must(!facts.ragged_blocks, "FP8 extents must be multiples of the block on every rank")
      .care(facts.model.mtp_layers == 0 || facts.further_copies,
            "multi-token prediction needs its copies of embedding and head: export writes them")
      .care(facts.has_tokenizer_json || facts.has_sentencepiece, "there is no tokenizer");
  return demands.take();
}

ReaderVerdict llama_cpp(const Facts& facts) {
  Demands demands("llama.cpp");
  const bool llama = facts.model.architecture == Architecture::llama;
  const bool latent = facts.model.latent_attention;
  demands.must(facts.has_tokenizer_json || facts.has_sentencepiece, "there is no tokenizer")
      .must(!latent || facts.has_tokenizer_json, "its deepseek class takes no SentencePiece tokenizer")
      .care(facts.has_sentencepiece && !latent,
            "a tokenizer.json must be one of those it knows by hash, with the BOS setting of the original")
      .care(!llama || facts.model.vocabulary != 32016, "32016 tokens mean CodeLlama to it: it adds four tokens")
      .care(!llama || facts.model.vocabulary != 49152, "49152 tokens mean that no BOS is put before a text")
      .care(facts.model.mtp_layers == 0, "multi-token prediction is dropped");
  return demands.take();
}

}  // namespace

std::string_view words_of(Reading reading) {
  switch (reading) {
    case Reading::whole: return "reads it";
    case Reading::with_care: return "reads it, but";
    case Reading::refused: break;
  }
  return "does not read it";
}

std::vector<ReaderVerdict> reader_verdicts(const ImportFolder& folder) {
  const Facts facts = facts_of(folder);
  return {ours(facts),           transformers_4(facts),   transformers_5(facts),
          server(facts, "vLLM"), server(facts, "SGLang"), llama_cpp(facts)};
}

}  // namespace shoestring
