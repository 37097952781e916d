#include "core/model/hugging_face_config.h"

#include <fmt/core.h>

#include <array>
#include <cmath>
#include <tuple>
#include <utility>

#include "core/model/families/config_keys.h"
#include "core/model/families/family.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

constexpr std::size_t kMostEnds = 64;  // ids that end a text

Json parse(std::string_view text) {
  return parse_json(text, "config.json", ExitCode::bad_data, {.bytes = std::size_t{1} << 20, .depth = 32});
}

// ---- RoPE

Json rope_scaling_of(const ModelConfig& config) {
  Json scaling;
  if (config.rope_scaling == RopeScalingKind::none) return scaling;
  const bool yarn = config.rope_scaling == RopeScalingKind::yarn;
  scaling.add("rope_type", yarn ? "yarn" : "llama3");
  if (yarn) scaling.add("type", "yarn");
  scaling.add("factor", config.rope_factor);
  scaling.add("original_max_position_embeddings", config.rope_original_positions);
  if (yarn) {
    scaling.add("beta_fast", config.rope_beta_fast);
    scaling.add("beta_slow", config.rope_beta_slow);
    if (config.latent_attention) {
      scaling.add("mscale", config.rope_mscale);
      scaling.add("mscale_all_dim", config.rope_mscale_all_dim);
    }
  } else {
    scaling.add("low_freq_factor", config.rope_low_frequency_factor);
    scaling.add("high_freq_factor", config.rope_high_frequency_factor);
  }
  return scaling;
}

/// transformers 4 has rope_theta and rope_scaling; 5 folds both into rope_parameters, which models of several kinds of
/// layers nest by kind.
double read_theta(const ConfigKeys& top, const ConfigKeys* rope) {
  constexpr double kTheta = 10000;
  const bool inside = rope != nullptr && rope->find("rope_theta") != nullptr;
  const double theta = top.number("rope_theta", inside ? rope->number("rope_theta") : kTheta);
  if (inside) {
    rope->refuse_unless(rope->number("rope_theta") == theta, "rope_theta",
                        fmt::format("rope_theta outside of it is {}", theta));
  }
  return theta;
}

void read_yarn(const ConfigKeys& rope, bool latent, ModelSpec& spec) {
  spec.rope_beta_fast = rope.number("beta_fast", 32.0);
  spec.rope_beta_slow = rope.number("beta_slow", 1.0);
  rope.refuse_unless(rope.find("attention_factor") == nullptr, "attention_factor");
  rope.refuse_unless(rope.boolean("truncate", !rope.says_null("truncate")), "truncate");
  if (!latent) {  // the factor alone scales them here
    rope.refuse_unless(rope.find("mscale") == nullptr, "mscale");
    rope.refuse_unless(rope.find("mscale_all_dim") == nullptr, "mscale_all_dim");
    return;
  }
  spec.rope_mscale_all_dim = rope.number("mscale_all_dim", 0.0);
  rope.refuse_unless(spec.rope_mscale_all_dim == 0 || rope.find("mscale") != nullptr, "mscale",
                     "beside mscale_all_dim, DeepSeek's own code takes 1 for it and transformers another scale");
  spec.rope_mscale = rope.number("mscale", 1.0);
}

/// The word for the kind of RoPE, which has two keys.
std::string read_rope_kind(const ConfigKeys& rope) {
  const std::string kind = rope.string("rope_type", rope.string("type", "default"));
  rope.refuse_unless(rope.string("type", kind) == kind, "type",
                     fmt::format("rope_type is {}, and readers differ in which they take", kind));
  rope.refuse_unless(kind == "default" || kind == "llama3" || kind == "yarn",
                     rope.find("rope_type") != nullptr ? "rope_type" : "type");
  return kind;
}

/// What rope_parameters or rope_scaling says, whichever `name` is; neither where it is nullptr.
void read_rope_of(const ConfigKeys& top, const char* name, bool latent, ModelSpec& spec) {
  if (name == nullptr) {
    spec.rope_theta = read_theta(top, nullptr);
    return;
  }
  const Json* found = top.find(name);
  const ConfigKeys rope(*found, fmt::format("config.json: {}", name));
  for (const Json::Member& member : found->members()) {
    rope.refuse_unless(!member.value.is_object(), member.key.c_str(), "another RoPE for each kind of layer");
  }
  spec.rope_theta = read_theta(top, &rope);
  rope.refuse_unless(rope.number("partial_rotary_factor", 1.0) == 1.0, "partial_rotary_factor");
  const std::string kind = read_rope_kind(rope);
  if (kind == "default") return;
  const bool yarn = kind == "yarn";
  spec.rope_scaling = yarn ? RopeScalingKind::yarn : RopeScalingKind::llama3;
  spec.rope_original_positions = rope.integer("original_max_position_embeddings", spec.max_positions);
  // Outside of the object only transformers 5 sees it, and there it wins.
  top.refuse_unless(
      top.integer("original_max_position_embeddings", spec.rope_original_positions) == spec.rope_original_positions,
      "original_max_position_embeddings", fmt::format("{} is the one of {}", spec.rope_original_positions, name));
  const double stretch = static_cast<double>(spec.max_positions) / static_cast<double>(spec.rope_original_positions);
  spec.rope_factor = rope.number("factor", yarn ? std::optional(stretch) : std::nullopt);
  if (yarn) return read_yarn(rope, latent, spec);
  spec.rope_low_frequency_factor = rope.number("low_freq_factor", 1.0);
  spec.rope_high_frequency_factor = rope.number("high_freq_factor", 4.0);
}

void read_rope(const ConfigKeys& top, bool latent, ModelSpec& spec) {
  top.refuse_unless(top.number("partial_rotary_factor", 1.0) == 1.0, "partial_rotary_factor");
  const bool folded = top.find("rope_parameters") != nullptr;
  const bool old = top.find("rope_scaling") != nullptr;
  ModelSpec other = spec;
  read_rope_of(top, folded ? "rope_parameters" : old ? "rope_scaling" : nullptr, latent, spec);
  if (!folded || !old) return;
  read_rope_of(top, "rope_scaling", latent, other);
  const auto rope = [](const ModelSpec& of) {
    return std::tuple(of.rope_theta, of.rope_scaling, of.rope_factor, of.rope_original_positions,
                      of.rope_low_frequency_factor, of.rope_high_frequency_factor, of.rope_beta_fast, of.rope_beta_slow,
                      of.rope_mscale, of.rope_mscale_all_dim);
  };
  top.refuse_unless(rope(spec) == rope(other), "rope_scaling",
                    "rope_parameters says something else, and readers differ in which they take");
}

// ---- facts

Json ids_of(const std::vector<std::int64_t>& ids) {
  if (ids.empty()) return {};
  return ids.size() == 1 ? Json(ids[0]) : Json::array_of(ids);
}

std::vector<std::int64_t> read_ids(const ConfigKeys& top, const char* key) {
  const Json* value = top.find(key);
  if (value == nullptr) return {};
  if (!value->is_array()) return {top.integer(key)};
  std::vector<std::int64_t> ids;
  top.refuse_unless(value->size() <= kMostEnds, key);
  for (const Json& id : value->items()) {
    top.refuse_unless(id.is_count(), key, "not a list of token ids");
    ids.push_back(id.whole());
  }
  return ids;
}

Json quantization_of(std::int64_t block) {
  return Json::object({{"quant_method", "fp8"},
                       {"fmt", "e4m3"},
                       {"activation_scheme", "dynamic"},
                       {"weight_block_size", Json::array_of(std::array{block, block})}});
}

std::optional<std::int64_t> read_quantization(const ConfigKeys& top) {
  const Json* found = top.find("quantization_config");
  if (found == nullptr) return {};
  const ConfigKeys keys(*found, "config.json: quantization_config");
  keys.refuse_unless(keys.string("quant_method") == "fp8", "quant_method",
                     "weights are read in BF16, F16, F32, or FP8 in blocks");
  keys.refuse_unless(keys.string("fmt", "e4m3") == "e4m3", "fmt");
  keys.refuse_unless(keys.string("activation_scheme", "dynamic") == "dynamic", "activation_scheme");
  const Json* block = keys.find("weight_block_size");
  keys.refuse_unless(block != nullptr && block->is_array() && block->size() == 2 && block->items()[0].is_count() &&
                         block->items()[1].is_count() && block->items()[0].whole() == block->items()[1].whole() &&
                         block->items()[0].whole() >= 1 && block->items()[0].whole() <= 4096,
                     "weight_block_size");
  return block->items()[0].whole();
}

const Family& read_family(const ConfigKeys& top) {
  const std::string type = top.string("model_type");
  for (const Family* family : families()) {
    if (type == name(family->architecture) || (family->also_read != nullptr && type == family->also_read)) {
      return *family;
    }
  }
  std::string known;
  for (const Family* family : families())
    known += fmt::format("{}{}", known.empty() ? "" : ", ", name(family->architecture));
  top.refuse_unless(false, "model_type", fmt::format("these are: {}", known));
  return kLlama;
}

}  // namespace

std::string write_hugging_face_config(const ModelConfig& config, const ModelFileFacts& facts) {
  const Family& family = family_of(config.architecture);
  Json json;
  json.add("architectures", Json::array_of(std::array{family.class_name}));
  json.add("model_type", std::string(name(config.architecture)));
  json.add("vocab_size", config.vocabulary);
  json.add("hidden_size", config.hidden);
  json.add("intermediate_size", config.feed_forward > 0 ? config.feed_forward : config.expert_feed_forward);
  json.add("num_hidden_layers", config.layers);
  json.add("num_attention_heads", config.heads);
  family.write_keys(config, json);
  json.add("hidden_act", "silu");
  json.add("max_position_embeddings", config.max_positions);
  json.add("initializer_range", config.init_std);
  json.add("rms_norm_eps", config.norm_eps);
  json.add("rope_theta", config.rope_theta);
  json.add("rope_scaling", rope_scaling_of(config));
  json.add("attention_dropout", 0.0);
  json.add("tie_word_embeddings", config.tie_embeddings);
  json.add("bos_token_id", facts.bos_token >= 0 ? Json(facts.bos_token) : Json());
  json.add("eos_token_id", ids_of(facts.eos_tokens));
  json.add("torch_dtype", facts.torch_dtype);
  if (facts.fp8_block) json.add("quantization_config", quantization_of(*facts.fp8_block));
  json.add("use_cache", true);
  return json.dump(2) + "\n";
}

ModelSpec read_hugging_face_spec(std::string_view text) {
  const Json json = parse(text);
  const ConfigKeys top(json);
  const Family& family = read_family(top);
  ModelSpec spec;
  spec.architecture = family.architecture;
  top.refuse_unless(top.string("hidden_act", "silu") == "silu", "hidden_act");
  top.refuse_unless(top.boolean("is_causal", !top.says_null("is_causal")), "is_causal",
                    "attention sees no later tokens here");
  spec.vocabulary = top.integer("vocab_size");
  top.refuse_unless(spec.vocabulary >= 1, "vocab_size");
  spec.layers = top.integer("num_hidden_layers");
  spec.hidden = top.integer("hidden_size");
  spec.heads = top.integer("num_attention_heads");
  spec.max_positions = top.integer("max_position_embeddings");
  top.refuse_unless(spec.max_positions >= 1, "max_position_embeddings");  // in a recipe 0 means: as long as its phases
  spec.norm_eps = top.number("rms_norm_eps", 1e-6);
  spec.init_std = top.number("initializer_range", 0.02);
  spec.tie_embeddings = top.boolean("tie_word_embeddings", false);
  spec.feed_forward = top.integer("intermediate_size");
  read_rope(top, family.latent_attention, spec);
  family.read_keys(top, spec);
  return spec;
}

ModelConfig read_hugging_face_config(std::string_view text) {
  const ModelSpec spec = read_hugging_face_spec(text);
  try {
    return resolve_model(spec, 0, spec.max_positions);
  } catch (const Error& error) {
    fail(ExitCode::bad_data, "config.json: {}", error.what());
  }
}

ModelFileFacts read_hugging_face_facts(std::string_view text) {
  const Json json = parse(text);
  const ConfigKeys top(json);
  ModelFileFacts facts;
  const std::vector<std::int64_t> begins = read_ids(top, "bos_token_id");
  if (!begins.empty()) facts.bos_token = begins[0];
  facts.eos_tokens = read_ids(top, "eos_token_id");
  facts.torch_dtype = top.string("torch_dtype", top.string("dtype", "float32"));
  facts.fp8_block = read_quantization(top);
  return facts;
}

}  // namespace shoestring
