#include "core/model/hugging_face_config.h"

#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

struct Family {
  Architecture architecture;
  const char* class_name;
};
constexpr std::array kFamilies = std::to_array<Family>({
    {Architecture::llama, "LlamaForCausalLM"},
    {Architecture::qwen2, "Qwen2ForCausalLM"},
    {Architecture::qwen3, "Qwen3ForCausalLM"},
    {Architecture::qwen3_moe, "Qwen3MoeForCausalLM"},
    {Architecture::deepseek_v3, "DeepseekV3ForCausalLM"},
});

/// Typed access to one JSON object; every complaint names the key.
class Reader {
 public:
  explicit Reader(const Json& object, std::string where = "config.json") : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail(ExitCode::bad_data, "{}: not a JSON object", where_);
  }

  /// Null and absent are the same.
  const Json* find(const char* key) const {
    const Json* value = object_.find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  std::int64_t integer(const char* key, std::optional<std::int64_t> otherwise = {}) const {
    const Json* value = find(key);
    if (value == nullptr) return absent(key, otherwise);
    constexpr std::int64_t kMost = std::int64_t{1} << 40;
    if (!value->is_whole() || !(value->number() < kMost && value->number() > -kMost)) {
      fail(ExitCode::bad_data, "{}: {} is not an integer of this range: {}", where_, key, text_of(*value));
    }
    return value->whole();
  }
  double number(const char* key, std::optional<double> otherwise = {}) const {
    const Json* value = find(key);
    if (value == nullptr) return absent(key, otherwise);
    if (!value->is_number()) fail(ExitCode::bad_data, "{}: {} is not a number: {}", where_, key, text_of(*value));
    return value->number();
  }
  bool boolean(const char* key, std::optional<bool> otherwise = {}) const {
    const Json* value = find(key);
    if (value == nullptr) return absent(key, otherwise);
    if (!value->is_flag()) fail(ExitCode::bad_data, "{}: {} is not true or false: {}", where_, key, text_of(*value));
    return value->flag();
  }
  std::string string(const char* key, std::optional<std::string> otherwise = {}) const {
    const Json* value = find(key);
    if (value == nullptr) return absent(key, std::move(otherwise));
    if (!value->is_text()) fail(ExitCode::bad_data, "{}: {} is not a string: {}", where_, key, text_of(*value));
    return value->text();
  }
  void refuse_unless(bool supported, const char* key) const {
    if (supported) return;
    const Json* value = find(key);
    fail(ExitCode::bad_data, "{}: {} = {} is not supported", where_, key, value ? text_of(*value) : "(absent)");
  }

 private:
  template <class T>
  T absent(const char* key, std::optional<T> otherwise) const {
    if (!otherwise) fail(ExitCode::bad_data, "{}: {} is missing", where_, key);
    return *std::move(otherwise);
  }
  static std::string text_of(const Json& value) {
    std::string text = value.dump();
    if (text.size() > 60) text = text.substr(0, 60) + "...";
    return text;
  }

  const Json& object_;
  std::string where_;
};

Json parse(std::string_view text) {
  return parse_json(text, "config.json", ExitCode::bad_data, {.bytes = std::size_t{1} << 20, .depth = 32});
}

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

void write_mixture(const ModelConfig& config, Json& json) {
  json.add("moe_intermediate_size", config.expert_feed_forward);
  json.add("num_experts_per_tok", config.experts_per_token);
  json.add("norm_topk_prob", config.normalize_weights);
  if (config.architecture == Architecture::qwen3_moe) {
    json.add("num_experts", config.experts);
    json.add("decoder_sparse_step", 1);
    Json& dense = json.add("mlp_only_layers", Json::array());
    for (std::int64_t layer = 0; layer < config.dense_layers; ++layer) dense.push(layer);
    json.add("router_aux_loss_coef", config.balance_loss);
    json.add("output_router_logits", false);
    return;
  }
  json.add("n_routed_experts", config.experts);
  json.add("n_shared_experts", config.shared_experts);
  json.add("routed_scaling_factor", config.routed_scale);
  json.add("n_group", config.expert_groups);
  json.add("topk_group", config.expert_topk_groups);
  json.add("first_k_dense_replace", config.dense_layers);
  json.add("moe_layer_freq", 1);
  json.add("scoring_func", config.router == RouterKindSpec::sigmoid   ? "sigmoid"
                           : config.router == RouterKindSpec::softmax ? "softmax"
                                                                      : "sqrtsoftplus");
  json.add("topk_method", "noaux_tc");
  json.add("seq_aux", true);
  json.add("aux_loss_alpha", config.balance_loss);
}

void write_latent_attention(const ModelConfig& config, Json& json) {
  json.add("q_lora_rank", config.q_lora_rank > 0 ? Json(config.q_lora_rank) : Json());
  json.add("kv_lora_rank", config.kv_lora_rank);
  json.add("qk_nope_head_dim", config.qk_nope_head_dim);
  json.add("qk_rope_head_dim", config.qk_rope_head_dim);
  json.add("v_head_dim", config.v_head_dim);
  json.add("rope_interleave", true);
  json.add("num_nextn_predict_layers", config.mtp_layers);
}

void read_rope(const Reader& top, ModelSpec& spec) {
  const Json* scaling = top.find("rope_scaling");
  if (scaling == nullptr) scaling = top.find("rope_parameters");  // transformers 5 folds both into one object
  spec.rope_theta = top.number(
      "rope_theta",
      scaling == nullptr ? 10000.0 : Reader(*scaling, "config.json: rope_scaling").number("rope_theta", 10000.0));
  if (scaling == nullptr) return;
  const Reader rope(*scaling, "config.json: rope_scaling");
  const std::string kind = rope.string("rope_type", rope.string("type", "default"));
  if (kind == "default") return;
  rope.refuse_unless(kind == "llama3" || kind == "yarn", "rope_type");
  spec.rope_scaling = kind == "yarn" ? RopeScalingKind::yarn : RopeScalingKind::llama3;
  spec.rope_factor = rope.number("factor");
  spec.rope_original_positions =
      rope.integer("original_max_position_embeddings", top.integer("max_position_embeddings"));
  spec.rope_low_frequency_factor = rope.number("low_freq_factor", 1.0);
  spec.rope_high_frequency_factor = rope.number("high_freq_factor", 4.0);
  spec.rope_beta_fast = rope.number("beta_fast", 32.0);
  spec.rope_beta_slow = rope.number("beta_slow", 1.0);
  spec.rope_mscale = rope.number("mscale", 1.0);
  spec.rope_mscale_all_dim = rope.number("mscale_all_dim", 0.0);
}

void read_mixture(const Reader& top, ModelSpec& spec) {
  spec.expert_feed_forward = top.integer("moe_intermediate_size");
  spec.experts_per_token = top.integer("num_experts_per_tok");
  spec.normalize_weights = top.boolean("norm_topk_prob", spec.architecture == Architecture::deepseek_v3);
  if (spec.architecture == Architecture::qwen3_moe) {
    spec.router = RouterKindSpec::softmax;
    spec.experts = top.integer("num_experts");
    spec.balance_loss = top.number("router_aux_loss_coef", spec.balance_loss);
    top.refuse_unless(top.integer("decoder_sparse_step", 1) == 1, "decoder_sparse_step");
    if (const Json* dense = top.find("mlp_only_layers")) {
      top.refuse_unless(dense->is_array() && dense->size() <= 4096, "mlp_only_layers");
      for (const Json& layer : dense->items()) {  // only a leading run of dense layers is supported
        top.refuse_unless(layer.is_count() && layer.whole() == spec.dense_layers, "mlp_only_layers");
        ++spec.dense_layers;
      }
    }
    return;
  }
  spec.experts = top.integer("n_routed_experts");
  spec.balance_loss = top.number("aux_loss_alpha", spec.balance_loss);
  spec.shared_experts = top.integer("n_shared_experts", 0);
  spec.routed_scale = top.number("routed_scaling_factor", 1.0);
  spec.expert_groups = top.integer("n_group", 1);
  spec.expert_topk_groups = top.integer("topk_group", 1);
  spec.dense_layers = top.integer("first_k_dense_replace", 0);
  top.refuse_unless(top.integer("moe_layer_freq", 1) == 1, "moe_layer_freq");
  top.refuse_unless(top.string("topk_method", "noaux_tc") == "noaux_tc", "topk_method");
  const std::string scores = top.string("scoring_func", "sigmoid");
  top.refuse_unless(scores == "sigmoid" || scores == "softmax" || scores == "sqrtsoftplus", "scoring_func");
  spec.router = scores == "sigmoid"   ? RouterKindSpec::sigmoid
                : scores == "softmax" ? RouterKindSpec::softmax
                                      : RouterKindSpec::sqrt_softplus;
}

void read_attention(const Reader& top, ModelSpec& spec) {
  if (spec.architecture == Architecture::deepseek_v3) {
    spec.q_lora_rank = top.integer("q_lora_rank", 0);
    spec.kv_lora_rank = top.integer("kv_lora_rank");
    spec.qk_nope_head_dim = top.integer("qk_nope_head_dim");
    spec.qk_rope_head_dim = top.integer("qk_rope_head_dim");
    spec.v_head_dim = top.integer("v_head_dim");
    spec.mtp_layers = top.integer("num_nextn_predict_layers", 0);
    top.refuse_unless(top.boolean("rope_interleave", true), "rope_interleave");
    top.refuse_unless(top.integer("num_key_value_heads", spec.heads) == spec.heads, "num_key_value_heads");
  } else {
    spec.kv_heads = top.integer("num_key_value_heads", spec.heads);
    spec.head_dim = top.integer("head_dim", 0);
  }
  if (spec.architecture != Architecture::qwen2) {  // qwen2 has its biases always, and no such key
    top.refuse_unless(!top.boolean("attention_bias", false), "attention_bias");
  }
  top.refuse_unless(!top.boolean("mlp_bias", false), "mlp_bias");
  top.refuse_unless(!top.boolean("use_sliding_window", false), "use_sliding_window");
}

}  // namespace

std::string write_hugging_face_config(const ModelConfig& config, const ModelFileFacts& facts) {
  Json json;
  for (const Family& family : kFamilies) {
    if (family.architecture == config.architecture)
      json.add("architectures", Json::array_of(std::array{family.class_name}));
  }
  json.add("model_type", std::string(name(config.architecture)));
  json.add("vocab_size", config.vocabulary);
  json.add("hidden_size", config.hidden);
  json.add("intermediate_size", config.feed_forward > 0 ? config.feed_forward : config.expert_feed_forward);
  json.add("num_hidden_layers", config.layers);
  json.add("num_attention_heads", config.heads);
  json.add("num_key_value_heads", config.kv_heads);
  if (config.latent_attention) {
    write_latent_attention(config, json);
  } else {
    json.add("head_dim", config.head_dim);
  }
  if (config.experts > 0) write_mixture(config, json);
  json.add("hidden_act", "silu");
  json.add("max_position_embeddings", config.max_positions);
  json.add("initializer_range", config.init_std);
  json.add("rms_norm_eps", config.norm_eps);
  json.add("rope_theta", config.rope_theta);
  json.add("rope_scaling", rope_scaling_of(config));
  if (config.architecture == Architecture::qwen2) {
    json.add("use_sliding_window", false);
  } else {
    json.add("attention_bias", false);
  }
  if (config.architecture == Architecture::llama) json.add("mlp_bias", false);
  json.add("attention_dropout", 0.0);
  json.add("tie_word_embeddings", config.tie_embeddings);
  json.add("bos_token_id", facts.bos_token >= 0 ? Json(facts.bos_token) : Json());
  json.add("eos_token_id", facts.eos_token >= 0 ? Json(facts.eos_token) : Json());
  json.add("torch_dtype", facts.torch_dtype);
  json.add("use_cache", true);
  return json.dump(2) + "\n";
}

ModelConfig read_hugging_face_config(std::string_view text) {
  const Json json = parse(text);
  const Reader top(json);
  ModelSpec spec;
  const std::string type = top.string("model_type");
  bool known = false;
  for (const Family& family : kFamilies) {
    if (type != name(family.architecture)) continue;
    spec.architecture = family.architecture;
    known = true;
  }
  top.refuse_unless(known, "model_type");
  top.refuse_unless(top.string("hidden_act", "silu") == "silu", "hidden_act");
  spec.vocabulary = top.integer("vocab_size");
  if (spec.vocabulary < 1) fail(ExitCode::bad_data, "config.json: vocab_size = {}", spec.vocabulary);
  spec.layers = top.integer("num_hidden_layers");
  spec.hidden = top.integer("hidden_size");
  spec.heads = top.integer("num_attention_heads");
  spec.max_positions = top.integer("max_position_embeddings");
  top.refuse_unless(spec.max_positions >= 1, "max_position_embeddings");  // in a recipe 0 means: as long as its phases
  spec.norm_eps = top.number("rms_norm_eps", 1e-6);
  spec.init_std = top.number("initializer_range", 0.02);
  spec.tie_embeddings = top.boolean("tie_word_embeddings", false);
  spec.feed_forward = top.integer("intermediate_size");
  read_attention(top, spec);
  read_rope(top, spec);
  if (spec.architecture == Architecture::qwen3_moe || spec.architecture == Architecture::deepseek_v3) {
    read_mixture(top, spec);
  }
  try {
    return resolve_model(spec, 0, spec.max_positions);
  } catch (const Error& error) {
    fail(ExitCode::bad_data, "config.json: {}", error.what());
  }
}

ModelFileFacts read_hugging_face_facts(std::string_view text) {
  const Json json = parse(text);
  const Reader top(json);
  ModelFileFacts facts;
  const auto token = [&](const char* key) -> std::int64_t {
    const Json* value = top.find(key);
    if (value != nullptr && value->is_array()) {  // several ends of text: the first is the one we write
      if (value->size() == 0 || !value->items()[0].is_count()) {
        fail(ExitCode::bad_data, "config.json: {} is a list without an id at its front", key);
      }
      return value->items()[0].whole();
    }
    return top.integer(key, -1);
  };
  facts.bos_token = token("bos_token_id");
  facts.eos_token = token("eos_token_id");
  facts.torch_dtype = top.string("torch_dtype", top.string("dtype", "float32"));
  return facts;
}

}  // namespace shoestring
